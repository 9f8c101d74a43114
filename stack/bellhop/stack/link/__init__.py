"""The link layer: pairs heralded between two neighbours, agreed on by both ends."""
