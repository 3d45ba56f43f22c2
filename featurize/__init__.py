"""Image shards to feature shards: ResNet50, batched."""
