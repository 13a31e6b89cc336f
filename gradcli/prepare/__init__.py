"""From a spec to something the engine can run: cells at their sizes, numbers drawn, input opened, memory reckoned."""
