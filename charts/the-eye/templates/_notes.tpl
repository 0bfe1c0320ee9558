{{- define "the-eye.notes" -}}
{{- $name := include "the-eye.fullname" . -}}
{{- $in := printf "--namespace %s" .Release.Namespace -}}
The Eye {{ .Chart.AppVersion }} is being started as {{ $name }} in {{ .Release.Namespace }}.
{{- if or (include "the-eye.tryOut.postgres" .) (include "the-eye.tryOut.valkey" .) }}

Its stores are there to try it out: a node that fails takes their data with it. For production, name Secrets with the
URLs of your own by database.existingSecret and redis.existingSecret, and set tryOut.enabled=false.
{{- end }}
{{- if and .Values.ingress.enabled (not .Values.ingress.tls.secretName) }}

The Ingress asks for no TLS: everyone on the way can read the tokens, unless something before it encrypts.
{{- end }}

Wait until it accepts events:

  kubectl {{ $in }} rollout status deployment/{{ $name }}-api deployment/{{ $name }}-worker

Send a first event:

  kubectl {{ $in }} exec deployment/{{ $name }}-api -- the-eye application create demo
  TOKEN=$(kubectl {{ $in }} exec deployment/{{ $name }}-api -- \
    the-eye token create --application demo --scope ingest --scope read)
  kubectl {{ $in }} port-forward service/{{ $name }}-api 8000:{{ .Values.api.service.port }} &
  curl --request POST http://localhost:8000/events \
    --header "Authorization: Bearer $TOKEN" --header 'Content-Type: application/json' \
    --data-raw '{"session_id": "e2085be5-9137-4e4e-80b5-f1ffddc25423",
      "category": "page interaction", "name": "cta click",
      "data": {"element": "banner"}, "timestamp": "'$(date -u +%FT%TZ)'"}'
  curl --header "Authorization: Bearer $TOKEN" 'http://localhost:8000/events?limit=1'

Apply a first rule, after which such an event is invalid:

  kubectl apply -f - <<'END'
  apiVersion: the-eye.io/v1alpha1
  kind: ValidatorRule
  metadata:
    name: cta-click-element
    namespace: {{ first (.Values.operator.ruleNamespaces | default (list .Release.Namespace)) }}
  spec:
    match:
      category: page interaction
      name: cta click
    schema:
      type: object
      required: [element]
      properties:
        element:
          enum: [chat bubble, buy button]
  END
  kubectl --namespace {{ first (.Values.operator.ruleNamespaces | default (list .Release.Namespace)) }} get validatorrules

Test the way of an event:

  helm test {{ .Release.Name }} {{ $in }} --logs
{{- with .Values.ingress }}
{{- if .enabled }}

From outside: {{ range .hosts }}{{ ternary "https" "http" (ne $.Values.ingress.tls.secretName "") }}://{{ . }}/events {{ end }}
{{- end }}
{{- end }}
{{- end -}}
