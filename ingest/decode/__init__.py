"""Bytes of pictures to the JPEGs that are stored, in processes of their own."""
