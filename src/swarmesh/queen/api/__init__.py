"""The control plane's routes: one table, from which the application and its OpenAPI document are made."""
