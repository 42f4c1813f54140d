"""What runs a graph: sessions, their providers, and the threads that they share."""
