{{- define "tapio.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains "tapio" .Release.Name -}}
{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-tapio" .Release.Name | trunc 40 | trimSuffix "-" }}
{{- end -}}
{{- end }}

{{- define "tapio.selector" -}}
app.kubernetes.io/name: tapio
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "tapio.labels" -}}
{{ include "tapio.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "tapio.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- /* Whether agents and server use TLS and tokens: "true" or "". Fails where neither this nor
insecure is chosen. */ -}}
{{- define "tapio.secure" -}}
{{- $a := .Values.access -}}
{{- if and $a.tlsSecretName $a.tokensSecretName $a.agentTokenSecretName -}}
{{- if $a.insecure }}{{ fail "access.insecure: true needs access.tlsSecretName, tokensSecretName and agentTokenSecretName to be \"\"" }}{{ end -}}
true
{{- else if or $a.tlsSecretName $a.tokensSecretName $a.agentTokenSecretName -}}
{{ fail "access: tlsSecretName, tokensSecretName and agentTokenSecretName belong together: name all three, or none and insecure: true" }}
{{- else if not $a.insecure -}}
{{ fail "access: name the secrets tlsSecretName, tokensSecretName and agentTokenSecretName; without TLS and tokens, anybody in the cluster can send and read: set access.insecure: true if that is meant" }}
{{- end -}}
{{- end }}

{{- /* Where the admin port of the agents listens: "tls", "insecure" or "loopback". */ -}}
{{- define "tapio.admin" -}}
{{- $a := .Values.agent.admin -}}
{{- if $a.tlsSecretName -}}
{{- if not $a.tokensSecretName }}{{ fail "agent.admin.tlsSecretName needs agent.admin.tokensSecretName" }}{{ end -}}
tls
{{- else if $a.insecure -}}
insecure
{{- else if .Values.agent.hostNetwork -}}
loopback
{{- else -}}
{{ fail "agent.hostNetwork: false: the kubelet's probes don't reach the loopback address of the pod: set agent.admin.tlsSecretName and tokensSecretName, or agent.admin.insecure: true" }}
{{- end -}}
{{- end }}

{{- define "tapio.endpoint" -}}
{{- $scheme := ternary "https" "http" (eq (include "tapio.secure" .) "true") -}}
{{- if .Values.server.endpoint -}}
{{ $scheme }}://{{ .Values.server.endpoint }}
{{- else if .Values.server.enabled -}}
{{ $scheme }}://{{ include "tapio.fullname" . }}-server.{{ .Release.Namespace }}.svc:7600
{{- else -}}
{{ fail "server.enabled: false needs server.endpoint" }}
{{- end -}}
{{- end }}

{{- define "tapio.bridge" -}}
endpoint: {{ include "tapio.endpoint" . | quote }}
{{- if eq (include "tapio.secure" .) "true" }}
tls: { ca: /etc/tapio/server-ca/ca.crt }
token_file: /etc/tapio/token/token
{{- end }}
{{- end }}

{{- define "tapio.bridgeMounts" -}}
{{- if eq (include "tapio.secure" .) "true" }}
- { name: server-ca, mountPath: /etc/tapio/server-ca, readOnly: true }
- { name: token, mountPath: /etc/tapio/token, readOnly: true }
{{- end }}
{{- end }}

{{- define "tapio.bridgeVolumes" -}}
{{- if eq (include "tapio.secure" .) "true" }}
- name: server-ca
  secret: { secretName: {{ .Values.access.tlsSecretName }}, items: [{ key: ca.crt, path: ca.crt }] }
- name: token
  secret: { secretName: {{ .Values.access.agentTokenSecretName }}, defaultMode: 0440 }
{{- end }}
{{- end }}

{{- define "tapio.agentConfig" -}}
{{- $presets := .Values.agent.presets -}}
node: ${NODE_NAME}
cluster: {{ .Values.cluster | quote }}
memory_limit: {{ .Values.agent.memoryLimit }}
state_dir: /var/lib/tapio
collectors:
  ebpf:
    enabled: {{ $presets.ebpf.enabled }}
    {{- if $presets.ebpf.enabled }}
    passwd_file: /etc/tapio/node/passwd
    {{- end }}
  kmsg:
    enabled: {{ $presets.kmsg.enabled }}
  journal:
    enabled: {{ $presets.journal.enabled }}
    {{- if $presets.journal.enabled }}
    directories: [{{ $presets.journal.directory }}]
    kernel: {{ not $presets.kmsg.enabled }}
    {{- end }}
  systemd:
    enabled: {{ $presets.systemd.enabled }}
  container:
    enabled: {{ $presets.container.enabled }}
    {{- if $presets.container.enabled }}
    sockets: [{{ $presets.container.socket }}]
    {{- end }}
  cni:
    enabled: {{ $presets.cni.enabled }}
    links: {{ .Values.agent.hostNetwork }}
  otlp:
    enabled: {{ $presets.otlp.enabled }}
  k8s:
    enabled: true
    objects_without_node: {{ not .Values.clusterAgent.enabled }}
bridge:
  {{- include "tapio.bridge" . | nindent 2 }}
admin:
  {{- include "tapio.adminConfig" . | nindent 2 }}
log: { format: json }
{{- end }}

{{- define "tapio.clusterConfig" -}}
node: {{ include "tapio.fullname" . }}-cluster
cluster: {{ .Values.cluster | quote }}
memory_limit: {{ .Values.clusterAgent.memoryLimit }}
state_dir: /var/lib/tapio
collectors:
  only: [k8s]
  k8s: { node: "-", objects_without_node: true }
bridge:
  {{- include "tapio.bridge" . | nindent 2 }}
admin:
  {{- include "tapio.adminConfig" . | nindent 2 }}
log: { format: json }
{{- end }}

{{- define "tapio.serverConfig" -}}
state_dir: /var/lib/tapio
server:
  grpc_listen: "0.0.0.0:7600"
  http_listen: "0.0.0.0:7601"
  data_dir: /var/lib/tapio/store
  retention_bytes: {{ int64 .Values.server.retentionBytes }}
  {{- if eq (include "tapio.secure" .) "true" }}
  tls: { cert: /etc/tapio/tls/tls.crt, key: /etc/tapio/tls/tls.key }
  token_file: /etc/tapio/tokens/tokens
  {{- else }}
  insecure: true
  {{- end }}
log: { format: json }
{{- end }}

{{- /* The target of a probe. On loopback the kubelet connects to the node's own address, which is
the pod's with hostNetwork; otherwise to the pod's, and doesn't verify the certificate. */ -}}
{{- define "tapio.probe" -}}
path: {{ .path }}
port: 7603
{{- if eq .admin "loopback" }}
host: 127.0.0.1
{{- else if eq .admin "tls" }}
scheme: HTTPS
{{- end }}
{{- end }}

{{- define "tapio.adminConfig" -}}
{{- $admin := include "tapio.admin" . -}}
{{- if eq $admin "loopback" -}}
listen: "127.0.0.1:7603"
{{- else -}}
listen: "0.0.0.0:7603"
{{- if eq $admin "tls" }}
tls: { cert: /etc/tapio/admin-tls/tls.crt, key: /etc/tapio/admin-tls/tls.key }
token_file: /etc/tapio/admin-tokens/tokens
{{- else }}
insecure: true
{{- end }}
{{- end }}
{{- end }}

{{- define "tapio.adminMounts" -}}
{{- if eq (include "tapio.admin" .) "tls" }}
- { name: admin-tls, mountPath: /etc/tapio/admin-tls, readOnly: true }
- { name: admin-tokens, mountPath: /etc/tapio/admin-tokens, readOnly: true }
{{- end }}
{{- end }}

{{- define "tapio.adminVolumes" -}}
{{- if eq (include "tapio.admin" .) "tls" }}
- name: admin-tls
  secret: { secretName: {{ .Values.agent.admin.tlsSecretName }}, defaultMode: 0440 }
- name: admin-tokens
  secret: { secretName: {{ .Values.agent.admin.tokensSecretName }}, defaultMode: 0440 }
{{- end }}
{{- end }}

{{- /* The probes of an agent. */ -}}
{{- define "tapio.agentProbes" -}}
{{- $admin := include "tapio.admin" . -}}
startupProbe:
  httpGet:
    {{- include "tapio.probe" (dict "path" "/healthz" "admin" $admin) | nindent 4 }}
  periodSeconds: 2
  failureThreshold: 60
livenessProbe:
  httpGet:
    {{- include "tapio.probe" (dict "path" "/healthz" "admin" $admin) | nindent 4 }}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet:
    {{- include "tapio.probe" (dict "path" "/readyz" "admin" $admin) | nindent 4 }}
  periodSeconds: 10
  timeoutSeconds: 5
{{- end }}
