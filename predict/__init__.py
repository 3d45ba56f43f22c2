"""New pictures to captions: the one place that puts decoding, features and model together."""
