"""What keeps data: buffers, tables, weight rows."""
