"""From a distilled block to keys that either end may hand out."""
