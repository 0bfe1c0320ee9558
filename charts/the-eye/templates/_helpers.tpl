{{/* Name of the release's objects; cut so that what is appended to it stays within 63 characters. */}}
{{- define "the-eye.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "the-eye.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "the-eye.operator.serviceAccountName" -}}
{{- default (printf "%s-operator" (include "the-eye.fullname" .)) .Values.operator.serviceAccount.name -}}
{{- end -}}

{{- define "the-eye.ruleset.name" -}}
{{- default (printf "%s-ruleset" (include "the-eye.fullname" .)) .Values.ruleset.name -}}
{{- end -}}
