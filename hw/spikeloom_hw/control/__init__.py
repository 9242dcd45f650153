"""What decides when and where: scheduling, loading, recording."""
