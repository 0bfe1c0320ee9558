{{/* The Service of a store to try out: (root, component, port). */}}
{{- define "the-eye.tryOut.service" -}}
apiVersion: v1
kind: Service
metadata:
  {{- include "the-eye.metadata" (list (first .) (index . 1) (include "the-eye.name" (list (first .) (index . 1)))) | nindent 2 }}
spec:
  # With an address of its own: a pod that comes back with another one is found at once, whoever remembers names.
  type: ClusterIP
  selector:
    {{- include "the-eye.selector" (list (first .) (index . 1)) | nindent 4 }}
  ports:
    - name: {{ index . 1 }}
      port: {{ last . }}
      targetPort: {{ index . 1 }}
{{- end -}}

{{/* What the StatefulSets of both have in common: (root, component, its values, checksum of its configuration). */}}
{{- define "the-eye.tryOut.spec" -}}
{{- $root := first . -}}
{{- $component := index . 1 -}}
serviceName: {{ include "the-eye.name" (list $root $component) }}
replicas: 1
revisionHistoryLimit: 3
# The volume stays, whatever becomes of the pods and of the release.
persistentVolumeClaimRetentionPolicy:
  whenDeleted: Retain
  whenScaled: Retain
selector:
  matchLabels:
    {{- include "the-eye.selector" (list $root $component) | nindent 4 }}
{{- if $root.Values.tryOut.persistence.enabled }}
volumeClaimTemplates:
  - metadata:
      name: data
      labels:
        {{- include "the-eye.selector" (list $root $component) | nindent 8 }}
    spec:
      accessModes: [ReadWriteOnce]
      {{- with $root.Values.tryOut.persistence.storageClassName }}
      storageClassName: {{ . | quote }}
      {{- end }}
      resources:
        requests:
          storage: {{ (last .).size }}
{{- end }}
{{- end -}}

{{/* The pod's settings: (root, component, its values). */}}
{{- define "the-eye.tryOut.podSpec" -}}
{{- $root := first . -}}
{{- $user := int64 (last .).runAsUser -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with $root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: {{ $user }}
  runAsGroup: {{ $user }}
  fsGroup: {{ $user }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- include "the-eye.scheduling" $root.Values.tryOut }}
{{- end -}}

{{/* The volume of the data, where it is not kept. */}}
{{- define "the-eye.tryOut.volume" -}}
{{- if not .Values.tryOut.persistence.enabled -}}
- name: data
  emptyDir: {}
{{- end }}
{{- end -}}
