"""verl: estimators by name in verl's own config, registered by the entry point in `plugin`."""
