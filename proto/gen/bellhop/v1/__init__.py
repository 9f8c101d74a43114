"""Generated protobuf messages and services, version 1."""
