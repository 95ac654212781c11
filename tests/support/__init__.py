"""What several test modules share: peers to talk to, real ones and scripted ones."""
