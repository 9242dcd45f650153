"""From the core to boards: tops that hold it, flows that build them, and what they cost."""
