"""The configuration that brokers are given, so that devices are isolated from one another (ADR
0033)."""
