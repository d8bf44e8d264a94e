//! Defaults of RoleBindings and ClusterRoleBindings.
//!
//! Mirrors `pkg/apis/rbac/v1/defaults.go`.

use k8s_openapi::api::rbac::v1::{ClusterRoleBinding, RoleBinding, RoleRef, Subject};

const GROUP: &str = "rbac.authorization.k8s.io";

/// A ClusterRoleBinding.
pub fn cluster_role_binding(binding: &mut ClusterRoleBinding) {
    groups(&mut binding.role_ref, &mut binding.subjects);
}

/// A RoleBinding.
pub fn role_binding(binding: &mut RoleBinding) {
    groups(&mut binding.role_ref, &mut binding.subjects);
}

fn groups(role: &mut RoleRef, subjects: &mut Option<Vec<Subject>>) {
    super::fill(&mut role.api_group, GROUP);
    for subject in subjects.iter_mut().flatten().filter(|subject| matches!(subject.kind.as_str(), "User" | "Group")) {
        super::fill(&mut subject.api_group, GROUP);
    }
}
