"""Reads an ExportTraceServiceRequest as JSON from stdin by OpenTelemetry's own definition, and prints what it says.

The JSON form of protobuf has bytes in base64; OTLP has ids in hexadecimal instead. An unknown field is an error here.
"""

import base64
import json
import sys

from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

given = json.load(sys.stdin)
for resource in given["resourceSpans"]:
    for scope in resource["scopeSpans"]:
        for span in scope["spans"]:
            for key in ("traceId", "spanId", "parentSpanId"):
                if key in span:
                    assert span[key] == span[key].lower(), span[key]
                    span[key] = base64.b64encode(bytes.fromhex(span[key])).decode()
request = json_format.Parse(json.dumps(given), ExportTraceServiceRequest())
names = []
for resource in request.resource_spans:
    assert any(a.key == "service.name" and a.value.string_value for a in resource.resource.attributes)
    for scope in resource.scope_spans:
        assert scope.scope.name == "runback"
        for span in scope.spans:
            assert len(span.trace_id) == 16 and len(span.span_id) == 8, span
            assert len(span.parent_span_id) in (0, 8), span
            assert 0 < span.start_time_unix_nano <= span.end_time_unix_nano, span
            assert span.kind == 1 and span.status.code in (0, 2), span
            names.append(span.name)
json.dump(names, sys.stdout)
