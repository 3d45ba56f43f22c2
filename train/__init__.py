"""Features and captions to a caption model: consolidate, fit, decode, evaluate."""
