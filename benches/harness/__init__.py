"""What benches/run and benches/profile are made of."""
