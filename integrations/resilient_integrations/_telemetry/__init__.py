"""What the modules for OpenTelemetry and Prometheus share: what is measured, and when. It imports neither of their libraries."""
