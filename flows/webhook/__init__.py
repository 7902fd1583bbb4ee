"""Receive webhooks of model registries: `POST /webhooks/{mlflow,huggingface,generic}`.

app      routes, limits, answers        senders   who sent it, and what it says
limits   size and rate                  acting    what follows, after the answer
"""
