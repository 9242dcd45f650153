"""The contract: every fact that two sides (host, gateware, model, documents) must agree on, stated once."""
