"""For those who carry the log to Elasticsearch: each with retries, a buffer on disk, and the document's own id."""

from __future__ import annotations

from fixer.telemetry.events import EVENTS

from .elastic import NAME

LOG = "/var/log/fixer/fixer.json"
HOST, PORT = "localhost", 9200
URL = f"http://{HOST}:{PORT}"

ABOUT = f"""# The log of fixer (log.to = "{LOG}") to Elasticsearch: docs/elk.md.
# Written by `python -m deploy`. Change the address, and add whom to be there: TLS, user or API key.
"""

RSYSLOG = f"""{ABOUT}#
# /etc/rsyslog.d/60-fixer.conf; needs rsyslog-elasticsearch. What the server does not take is kept: in the file, whose
# position rsyslog remembers, and up to 1 GB on disk. A line that comes twice has the same id and is one document.
module(load="imfile")
module(load="mmjsonparse")
module(load="omelasticsearch")

input(type="imfile" file="{LOG}" tag="fixer" ruleset="fixer"
      reopenOnTruncate="on" freshStartTail="off" persistStateInterval="1000")

template(name="fixer-document" type="string" string="%msg%")
template(name="fixer-id" type="string" string="%$!event!id%")
template(name="fixer-stream" type="string" string="logs-%$!data_stream!dataset%-%$!data_stream!namespace%")

ruleset(name="fixer") {{
    action(type="mmjsonparse" cookie="")
    if $parsesuccess == "OK" then {{
        action(type="omelasticsearch" server="{HOST}" serverport="{PORT}"
               template="fixer-document" dynSearchIndex="on" searchIndex="fixer-stream" searchType=""
               bulkmode="on" dynbulkid="on" bulkid="fixer-id" writeoperation="create" maxbytes="10m"
               retryfailures="on" retryruleset="fixer-again" errorfile="/var/spool/rsyslog/fixer-refused.json"
               action.resumeRetryCount="-1" action.resumeInterval="5"
               queue.type="LinkedList" queue.size="20000" queue.dequeueBatchSize="1000" queue.workerThreads="1"
               queue.filename="fixer-elastic" queue.maxDiskSpace="1g" queue.saveOnShutdown="on")
    }}
}}

# What the server was too busy for comes here, with what was to be done with it.
template(name="fixer-again-id" type="string" string="%$.omes!_id%")
template(name="fixer-again-stream" type="string" string="%$.omes!_index%")
ruleset(name="fixer-again" queue.type="LinkedList" queue.size="20000") {{
    if strlen($.omes!_id) > 0 then {{
        action(type="omelasticsearch" server="{HOST}" serverport="{PORT}"
               template="fixer-document" dynSearchIndex="on" searchIndex="fixer-again-stream" searchType=""
               bulkmode="on" dynbulkid="on" bulkid="fixer-again-id" writeoperation="create"
               retryfailures="on" retryruleset="fixer-again" action.resumeRetryCount="-1" action.resumeInterval="5")
    }}
}}
"""

_FILEBEAT_OUTPUT = f"""
processors:
  # The document's id is made of event.id: what is sent again is not a second document.
  - fingerprint:
      fields: [event.id]
      target_field: "@metadata._id"

setup.template.enabled: false   # deploy/elk/install has put ours there
setup.ilm.enabled: false
publisher_pipeline.disable_host: true   # host.name is ours
queue.disk:
  max_size: 1GB

output.elasticsearch:
  hosts: ["{URL}"]
  index: "logs-%{{[data_stream.dataset]}}-%{{[data_stream.namespace]}}"
"""

FILEBEAT_FILE = f"""{ABOUT}
filebeat.inputs:
  - type: filestream
    id: fixer
    paths: ["{LOG}"]
    parsers:
      - ndjson:
          target: ""
          overwrite_keys: true
          add_error_key: true
{_FILEBEAT_OUTPUT}"""

FILEBEAT_JOURNALD = f"""# The log of fixer (log.to = "stdout", as a service) from the journal to Elasticsearch.
# Written by `python -m deploy`. Change the address, and add whom to be there: TLS, user or API key.

filebeat.inputs:
  - type: journald
    id: fixer
    include_matches.match:
      - SYSLOG_IDENTIFIER=fixer
    parsers:
      - ndjson:
          target: ""
          overwrite_keys: true
          add_error_key: true
{_FILEBEAT_OUTPUT}"""

AGENT = f"""{ABOUT}#
# An input of a standalone Elastic Agent; under Fleet the same goes into a "Custom Logs (Filestream)" integration. The
# agent writes all of an input into one data stream: the pipeline {NAME}.agent reads each line, and sends it to its own.
inputs:
  - id: fixer
    type: filestream
    use_output: default
    data_stream:
      namespace: default
    streams:
      - id: fixer-log
        data_stream:
          type: logs
          dataset: fixer.log
        paths: ["{LOG}"]
        pipeline: {NAME}.agent
"""

_STREAMS = "".join(
    f"""    - name: es
      match: {dataset}
      host: {HOST}
      port: {PORT}
      index: logs-{dataset}-default
      id_key: $event['id']
      write_operation: create
      suppress_type_name: on
      time_key: "@timestamp"
      trace_error: on
      retry_limit: no_limits
"""
    for dataset in EVENTS
)

FLUENT_BIT = f"""{ABOUT}
service:
  flush: 1
  storage.path: /var/lib/fluent-bit/buffer

parsers:
  - name: fixer
    format: json
    time_key: "@timestamp"
    time_format: "%Y-%m-%dT%H:%M:%S.%LZ"

pipeline:
  inputs:
    - name: tail
      path: {LOG}
      tag: lines
      parser: fixer
      read_from_head: on
      db: /var/lib/fluent-bit/fixer.db
      storage.type: filesystem
  filters:
    # Each line becomes one of its data stream.
    - name: rewrite_tag
      match: lines
      rule: $event['dataset'] ^(fixer\\.[a-z]+)$ $1 false
  outputs:
{_STREAMS}"""

VECTOR = f"""{ABOUT}
sources:
  fixer_log:
    type: file
    include: ["{LOG}"]
transforms:
  fixer:
    type: remap
    inputs: [fixer_log]
    source: |
      . = parse_json!(string!(.message))
sinks:
  fixer_elastic:
    type: elasticsearch
    inputs: [fixer]
    endpoints: ["{URL}"]
    api_version: v8
    mode: data_stream
    data_stream:
      auto_routing: true    # by data_stream.* of each document
    bulk:
      action: create
    id_key: event.id
    buffer:
      type: disk
      max_size: 1073741824
      when_full: block      # the file is a buffer as well
"""

LOGROTATE = f"""# /etc/logrotate.d/fixer. fixer itself opens a new file. It is compressed a day later, for shippers.
{LOG} {{
    daily
    maxsize 500M
    rotate 7
    missingok
    notifempty
    nocreate
    compress
    delaycompress
}}
"""

SERVICE = f"""# /etc/systemd/system/fixer.service.d/log.conf: where the service may write log.to = "{LOG}".
[Service]
LogsDirectory=fixer
LogsDirectoryMode=0750
"""


def files() -> dict[str, str]:
    return {
        "rsyslog.conf": RSYSLOG,
        "filebeat-file.yml": FILEBEAT_FILE,
        "filebeat-journald.yml": FILEBEAT_JOURNALD,
        "elastic-agent.yml": AGENT,
        "fluent-bit.yaml": FLUENT_BIT,
        "vector.yaml": VECTOR,
        "logrotate.conf": LOGROTATE,
        "fixer.service.conf": SERVICE,
    }
