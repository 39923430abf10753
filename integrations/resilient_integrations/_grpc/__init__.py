"""What the gRPC integration is made of."""
