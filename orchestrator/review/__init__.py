"""The command `review`: blinded rating sheets and their results; imports `stages` and whatever that may import."""
