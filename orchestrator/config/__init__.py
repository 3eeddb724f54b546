"""The sweep file, a module a section; imports only `core`, and none of torch, Ray, vLLM, transformers and lm-eval."""
