{{/* A pod that runs commands one after the other and ends: (root, component, restartPolicy, commands, settings). */}}
{{- define "the-eye.task" -}}
{{- $root := first . -}}
{{- $component := index . 1 -}}
{{- $commands := index . 3 -}}
{{- $settings := last . -}}
{{- include "the-eye.podSpec" (list $root $component $root.Values.tasks (include "the-eye.serviceAccountName" (list $root "tasks" $root.Values.tasks))) }}
restartPolicy: {{ index . 2 }}
{{- with initial $commands }}
initContainers:
  {{- range . }}
  {{- include "the-eye.task.container" (list $root . $settings) | nindent 2 }}
  {{- end }}
{{- end }}
containers:
  {{- include "the-eye.task.container" (list $root (last $commands) $settings) | nindent 2 }}
volumes:
  {{- include "the-eye.volumes" $root | nindent 2 }}
{{- end -}}

{{/* (root, command of the-eye, settings) */}}
{{- define "the-eye.task.container" -}}
{{- $root := first . -}}
{{- $command := index . 1 -}}
- name: {{ first $command }}
  image: {{ include "the-eye.image" (list $root $root.Values.tasks.image) }}
  imagePullPolicy: {{ $root.Values.image.pullPolicy }}
  command: {{ prepend $command "the-eye" | toJson }}
  env:
    {{- include "the-eye.databaseUrl" $root | nindent 4 }}
    {{- with include "the-eye.settings" (last .) | trim }}
    {{- . | nindent 4 }}
    {{- end }}
    {{- with $root.Values.extraEnv }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  resources:
    {{- toYaml $root.Values.tasks.resources | nindent 4 }}
  securityContext:
    {{- include "the-eye.containerSecurity" . | nindent 4 }}
  volumeMounts:
    {{- include "the-eye.volumeMounts" $root | nindent 4 }}
{{- end -}}
