"""Vizier by its wire protocol: Vertex AI's service, and the open-source one."""
