"""The client of Pachyderm: where it is, what it is asked, and the datums that it hands out."""
