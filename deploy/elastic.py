"""For Elasticsearch 8 and 9: component templates, an index template, a lifecycle, and what puts them there."""

from __future__ import annotations

import json
from typing import Any

from fixer import __version__
from fixer.telemetry.fields import ECS, OURS, Field

NAME = "logs-fixer"
"""Of the template and the lifecycle; what belongs to it begins so."""
PATTERN = "logs-fixer.*-*"
PRIORITY = 250  # Elasticsearch's own template for logs-*-* has 100
KEYWORD_BYTES = 1024  # as ECS has it
META = {"description": "fixer: inline repair of broken VXLAN checksums", "version": __version__}


def mapping(field: Field) -> dict[str, Any]:
    """How one field is indexed."""
    if field.type == "keyword":
        return {"type": "keyword", "ignore_above": KEYWORD_BYTES}
    return {"type": field.type}


def nested(fields: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Dotted names as Elasticsearch's ``properties``."""
    properties: dict[str, Any] = {}
    for name, found in fields.items():
        *parents, last = name.split(".")
        here = properties
        for parent in parents:
            here = here.setdefault(parent, {}).setdefault("properties", {})
        here[last] = found
    return properties


def component_ecs() -> dict[str, Any]:
    """The fields of the Elastic Common Schema that we use; what a shipper adds becomes a keyword."""
    strings = {"match_mapping_type": "string", "mapping": {"type": "keyword", "ignore_above": KEYWORD_BYTES}}
    fields = {field.name: mapping(field) for field in ECS}
    return {
        "template": {
            "mappings": {
                "date_detection": False,
                "dynamic_templates": [{"strings_are_keywords": strings}],
                "properties": nested(fields),
            }
        },
        "_meta": META,
    }


def component_fixer() -> dict[str, Any]:
    """Ours, under ``fixer.*``: a field that is not in the list is an error, and not a new mapping."""
    ours = {field.name: mapping(field) for several in OURS.values() for field in several}
    properties = nested(ours)
    properties["fixer"]["dynamic"] = "strict"
    return {"template": {"mappings": {"properties": properties}}, "_meta": META}


def component_settings() -> dict[str, Any]:
    return {
        "template": {
            "settings": {
                "index.lifecycle.name": NAME,
                "index.codec": "best_compression",
                "index.query.default_field": ["message", "event.reason", "fixer.finding.cure"],
            }
        },
        "_meta": META,
    }


def lifecycle() -> dict[str, Any]:
    """A quarter of a year; a shard is closed at 50 GB or after a month, and merged once nobody writes to it."""
    return {
        "policy": {
            "_meta": META,
            "phases": {
                "hot": {"actions": {"rollover": {"max_age": "30d", "max_primary_shard_size": "50gb"}}},
                "warm": {"min_age": "2d", "actions": {"forcemerge": {"max_num_segments": 1}, "readonly": {}}},
                "delete": {"min_age": "90d", "actions": {"delete": {}}},
            },
        }
    }


def index_template() -> dict[str, Any]:
    return {
        "index_patterns": [PATTERN],
        "priority": PRIORITY,
        "data_stream": {},
        "composed_of": [f"{NAME}-{part}" for part in ("settings", "ecs", "fields")],
        "_meta": META,
    }


def reroute() -> dict[str, Any]:
    """For Elastic Agent alone, which puts names of its own on all of an input: the line's are read, and obeyed."""
    line = {"field": "message", "add_to_root": True, "add_to_root_conflict_strategy": "replace"}
    where = {"dataset": "{{event.dataset}}", "namespace": "{{data_stream.namespace}}"}
    return {
        "description": META["description"],
        "processors": [{"json": line}, {"set": {"field": "_id", "value": "{{event.id}}"}}, {"reroute": where}],
    }


PUT = {
    "ilm-policy.json": f"_ilm/policy/{NAME}",
    "component-settings.json": f"_component_template/{NAME}-settings",
    "component-ecs.json": f"_component_template/{NAME}-ecs",
    "component-fields.json": f"_component_template/{NAME}-fields",
    "index-template.json": f"_index_template/{NAME}",
    "agent-pipeline.json": f"_ingest/pipeline/{NAME}.agent",
}
"""Each file, and where it goes; in the order in which they must."""


def install() -> str:
    """The script that puts them there."""
    puts = "\n".join(f"put {path} {name}" for name, path in PUT.items())
    return f"""#!/bin/sh
# Put fixer's templates and lifecycle into Elasticsearch, and its dashboard into Kibana. Twice does no harm.
#   ELASTIC=https://es:9200 KIBANA=https://kibana:5601 APIKEY=... ./install      KIBANA may be left out
set -eu
cd "$(dirname "$0")"
: "${{ELASTIC:?say where, as in ELASTIC=https://es:9200}}"
request() {{ curl -sS --fail-with-body ${{APIKEY:+-H "Authorization: ApiKey $APIKEY"}} "$@"; echo; }}
put() {{ request -X PUT "$ELASTIC/$1" -H 'Content-Type: application/json' --data-binary "@$2"; }}
{puts}
if [ -n "${{KIBANA:-}}" ]; then
    request -X POST "$KIBANA/api/saved_objects/_import?overwrite=true" -H 'kbn-xsrf: true' -F file=@kibana.ndjson
fi
"""


def files() -> dict[str, str]:
    made = {
        "ilm-policy.json": lifecycle(),
        "component-settings.json": component_settings(),
        "component-ecs.json": component_ecs(),
        "component-fields.json": component_fixer(),
        "index-template.json": index_template(),
        "agent-pipeline.json": reroute(),
    }
    return {name: json.dumps(made[name], indent=1) + "\n" for name in PUT} | {"install": install()}
