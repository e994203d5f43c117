"""What others need to take in what fixer tells: written by ``python -m deploy`` from the lists in the code.

``elk/``: Elasticsearch, Kibana and shippers; ``prometheus/``: alerts, their tests, a dashboard. ``kubernetes/`` is
written by hand.
"""
