"""Errors, records, files, object storage and progress; imports no other folder, nor pydantic, torch, Ray or vLLM."""
