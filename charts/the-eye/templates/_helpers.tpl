{{/*
Name of the release's objects; cut so that what is appended to it stays within 63 characters. A hash then tells it from
others that begin alike.
*/}}
{{- define "the-eye.fullname" -}}
{{- $name := contains .Chart.Name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) -}}
{{- if gt (len $name) 40 -}}
{{- $name = printf "%s-%s" ($name | trunc 31 | trimSuffix "-") (sha256sum $name | trunc 8) -}}
{{- end -}}
{{- $name -}}
{{- end -}}

{{- define "the-eye.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "the-eye.operator.serviceAccountName" -}}
{{- default (printf "%s-operator" (include "the-eye.fullname" .)) .Values.operator.serviceAccount.name -}}
{{- end -}}

{{- define "the-eye.ruleset.name" -}}
{{- default (printf "%s-ruleset" (include "the-eye.fullname" .)) .Values.ruleset.name -}}
{{- end -}}

{{/* What a list (root, component) stands for below: the component's part of the release. */}}
{{- define "the-eye.name" -}}
{{- $root := first . -}}
{{- printf "%s-%s" (include "the-eye.fullname" $root) (last .) -}}
{{- end -}}

{{/* What tells a component's pods from all others, for selectors. */}}
{{- define "the-eye.selector" -}}
{{- $root := first . -}}
app.kubernetes.io/name: {{ $root.Chart.Name }}
app.kubernetes.io/instance: {{ $root.Release.Name | quote }}
app.kubernetes.io/component: {{ last . }}
{{- end -}}

{{/* Metadata of a component's object: (root, component, name). */}}
{{- define "the-eye.metadata" -}}
{{- $root := first . -}}
name: {{ last . | quote }}
namespace: {{ $root.Release.Namespace | quote }}
labels:
  {{- include "the-eye.labels" $root | nindent 2 }}
  app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/*
Metadata of a component's pods: (root, component, its values). The chart's version is not among it: it alone is no reason
to replace a pod.
*/}}
{{- define "the-eye.podMetadata" -}}
{{- $values := last . -}}
labels:
  {{- include "the-eye.selector" (list (first .) (index . 1)) | nindent 2 }}
  {{- with $values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with $values.podAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* An image's reference: (root, image). The tag of The Eye's own images is the release's. */}}
{{- define "the-eye.image" -}}
{{- $root := first . -}}
{{- $image := last . -}}
{{- with $root.Values.image.registry }}{{ trimSuffix "/" . }}/{{ end -}}
{{- $image.repository -}}
{{- if $image.digest -}}
@{{ $image.digest }}
{{- else -}}
:{{ $image.tag | default $root.Values.image.tag | default $root.Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* (root, component, its values) */}}
{{- define "the-eye.serviceAccountName" -}}
{{- default (include "the-eye.name" (list (first .) (index . 1))) (last .).serviceAccount.name -}}
{{- end -}}

{{/* A number or text as an environment variable holds it: Helm reads 4294967296 as 4.294967296e+09. */}}
{{- define "the-eye.text" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) -}}
{{- printf "%.0f" . -}}
{{- else -}}
{{- toString . -}}
{{- end -}}
{{- end -}}

{{/* A quantity as a whole number of bytes: the API server writes 1024Mi as 1Gi. */}}
{{- define "the-eye.bytes" -}}
{{- $unit := regexFind "[A-Za-z]*$" . -}}
{{- $factors := dict "" 1 "m" 0.001 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15 "E" 1e18 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 "Pi" 1125899906842624 "Ei" 1152921504606846976 -}}
{{- printf "%.0f" (mulf (trimSuffix $unit . | float64) (get $factors $unit)) -}}
{{- end -}}

{{/* Settings as environment variables: each a dict or null, later ones win. */}}
{{- define "the-eye.settings" -}}
{{- $merged := dict -}}
{{- range . }}{{ $merged = mergeOverwrite $merged (deepCopy (. | default dict)) }}{{ end -}}
{{- range $key, $value := $merged }}
- name: {{ $key }}
  value: {{ include "the-eye.text" $value | quote }}
{{- end }}
{{- end -}}

{{/* A variable whose value a Secret holds: (name, Secret, key). */}}
{{- define "the-eye.secretVariable" -}}
- name: {{ first . }}
  valueFrom:
    secretKeyRef:
      name: {{ index . 1 | quote }}
      key: {{ last . | quote }}
{{- end -}}

{{/* Where traces go and what the pod is, as OpenTelemetry reads it: (root, component). Nothing without an endpoint. */}}
{{- define "the-eye.tracing" -}}
{{- $root := first . -}}
{{- with $root.Values.tracing -}}
{{- if .endpoint -}}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ .endpoint | quote }}
- name: OTEL_TRACES_SAMPLER
  value: parentbased_traceidratio
- name: OTEL_TRACES_SAMPLER_ARG
  value: {{ .ratio | quote }}
{{- range $name, $field := dict "NAMESPACE" "metadata.namespace" "POD_NAME" "metadata.name" "POD_UID" "metadata.uid" "NODE_NAME" "spec.nodeName" }}
- name: {{ $name }}
  valueFrom:
    fieldRef:
      fieldPath: {{ $field }}
{{- end }}
- name: OTEL_RESOURCE_ATTRIBUTES
  value: >-
    k8s.namespace.name=$(NAMESPACE),k8s.deployment.name={{ include "the-eye.name" $ }},k8s.pod.name=$(POD_NAME),k8s.pod.uid=$(POD_UID),k8s.node.name=$(NODE_NAME),k8s.container.name={{ last $ }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "the-eye.databaseUrl" -}}
{{- if .Values.database.existingSecret -}}
{{- include "the-eye.secretVariable" (list "THE_EYE_DATABASE_URL" .Values.database.existingSecret .Values.database.existingSecretKey) -}}
{{- else -}}
{{- include "the-eye.secretVariable" (list "THE_EYE_DATABASE_URL" (include "the-eye.tryOut.secret" .) "database-url") -}}
{{- end -}}
{{- end -}}

{{- define "the-eye.redisUrl" -}}
{{- if .Values.redis.existingSecret -}}
{{- include "the-eye.secretVariable" (list "THE_EYE_REDIS_URL" .Values.redis.existingSecret .Values.redis.existingSecretKey) -}}
{{- else -}}
{{- include "the-eye.secretVariable" (list "THE_EYE_REDIS_URL" (include "the-eye.tryOut.secret" .) "redis-url") -}}
{{- end -}}
{{- end -}}

{{- define "the-eye.tryOut.secret" -}}
{{- default (include "the-eye.name" (list . "try-out")) .Values.tryOut.existingSecret -}}
{{- end -}}

{{/* Whether a store to try out is started: "true" or nothing. */}}
{{- define "the-eye.tryOut.postgres" -}}
{{- if and .Values.tryOut.enabled (not .Values.database.existingSecret) }}true{{ end -}}
{{- end -}}
{{- define "the-eye.tryOut.valkey" -}}
{{- if and .Values.tryOut.enabled (not .Values.redis.existingSecret) }}true{{ end -}}
{{- end -}}

{{/* What a pod of The Eye's own has, whatever it does: (root, component, its values, name of its account). */}}
{{- define "the-eye.podSpec" -}}
{{- $root := first . -}}
{{- $values := index . 2 -}}
serviceAccountName: {{ last . | quote }}
automountServiceAccountToken: {{ eq (index . 1) "operator" }}
# Services' names as THE_EYE_* variables would be taken for settings.
enableServiceLinks: false
{{- with $root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  {{- range $key := list "runAsUser" "runAsGroup" "fsGroup" }}
  {{- $id := get $root.Values.podSecurity $key }}
  {{- if not (or (kindIs "invalid" $id) (kindIs "string" $id)) }}
  {{ $key }}: {{ int64 $id }}
  {{- end }}
  {{- end }}
  seccompProfile:
    type: RuntimeDefault
{{- include "the-eye.scheduling" $values }}
{{- end -}}

{{- define "the-eye.scheduling" -}}
{{- with .priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* (root, component) */}}
{{- define "the-eye.topologySpread" -}}
{{- $arguments := . -}}
{{- with (first .).Values.topologySpread -}}
topologySpreadConstraints:
  {{- range . }}
  - topologyKey: {{ . | quote }}
    maxSkew: 1
    whenUnsatisfiable: ScheduleAnyway
    matchLabelKeys: [pod-template-hash]
    labelSelector:
      matchLabels:
        {{- include "the-eye.selector" $arguments | nindent 8 }}
  {{- end }}
{{- end -}}
{{- end -}}

{{- define "the-eye.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* The one directory that a process can write to, and what the user adds. */}}
{{- define "the-eye.volumeMounts" -}}
- name: tmp
  mountPath: /tmp
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "the-eye.volumes" -}}
- name: tmp
  emptyDir:
    sizeLimit: 64Mi
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The ruleset that the operator publishes, as a directory: where it is, its mount and its volume. */}}
{{- define "the-eye.ruleset.env" -}}
- name: THE_EYE_RULES_DIR
  value: /etc/the-eye/rules
{{- end -}}

{{- define "the-eye.ruleset.volumeMount" -}}
- name: rules
  mountPath: /etc/the-eye/rules
  readOnly: true
{{- end -}}

{{- define "the-eye.ruleset.volume" -}}
{{- $ruleset := include "the-eye.ruleset.name" . -}}
# The operator writes them, and not all are there: before its first ruleset none is.
- name: rules
  projected:
    sources:
      - configMap:
          name: {{ $ruleset | quote }}
          optional: true
      {{- range $slot := until 32 }}
      - configMap:
          name: {{ $ruleset }}-{{ $slot }}
          optional: true
      {{- end }}
{{- end -}}

{{/* A service account whose token is mounted nowhere but where a pod asks for it: (root, component, its values). */}}
{{- define "the-eye.serviceAccount" -}}
{{- $values := last . -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  {{- include "the-eye.metadata" (list (first .) (index . 1) (include "the-eye.serviceAccountName" .)) | nindent 2 }}
  {{- with $values.serviceAccount.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
automountServiceAccountToken: false
{{- end -}}

{{/* (root, component, its values) */}}
{{- define "the-eye.podDisruptionBudget" -}}
{{- $values := last . -}}
{{- if $values.podDisruptionBudget.enabled -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  {{- include "the-eye.metadata" (list (first .) (index . 1) (include "the-eye.name" (list (first .) (index . 1)))) | nindent 2 }}
spec:
  maxUnavailable: {{ $values.podDisruptionBudget.maxUnavailable }}
  # A pod that is not ready serves nobody, and must not keep a node from being emptied.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "the-eye.selector" (list (first .) (index . 1)) | nindent 6 }}
{{- end -}}
{{- end -}}
