"""What users of these tasks run today, each written as its own documents tell them to."""
