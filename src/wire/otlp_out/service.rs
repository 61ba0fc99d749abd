//! tapio as an OpenTelemetry service.

use crate::proto_vec::ProtoVec;

/// The resource attributes of tapio itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OtlpService {
    /// `service.name`
    pub name: String,
    /// `service.version`
    pub version: String,
    /// `deployment.environment.name`; empty: none.
    pub environment: String,
    /// `k8s.cluster.name`; empty: none.
    pub cluster: String,
}

impl OtlpService {
    /// Writes the attributes of tapio's `Resource`.
    pub(super) fn write(&self, out: &mut ProtoVec) {
        let attributes = [("service.name", &self.name), ("service.version", &self.version)];
        for (key, value) in attributes.into_iter().filter(|(_, value)| !value.is_empty()) {
            out.text_attribute(1, key, value);
        }
        self.write_place(out);
    }

    /// Writes where it runs, which is true of every service on the node.
    pub(super) fn write_place(&self, out: &mut ProtoVec) {
        let attributes = [
            ("deployment.environment.name", &self.environment),
            ("k8s.cluster.name", &self.cluster),
        ];
        for (key, value) in attributes.into_iter().filter(|(_, value)| !value.is_empty()) {
            out.text_attribute(1, key, value);
        }
    }
}
