//! A certificate authority of the test's own, and files of what it signs.

use std::path::PathBuf;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use super::redis::free_port;

pub(crate) struct Authority {
    directory: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        // A number that no other test has now.
        let number = format!("{}-{}", std::process::id(), free_port());
        let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(&number);
        std::fs::create_dir_all(&directory).unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages.push(KeyUsagePurpose::KeyCertSign);
        params.distinguished_name = DistinguishedName::new();
        // Two of one name would be taken for one that signs badly.
        params.distinguished_name.push(DnType::CommonName, number);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(directory.join("ca.pem"), certificate.pem()).unwrap();
        Self { directory, issuer: Issuer::new(params, key) }
    }

    pub(crate) fn path(&self, file: &str) -> String {
        self.directory.join(file).to_str().unwrap().to_owned()
    }

    /// Signs a certificate for `hosts`, and returns the paths of it and of its key.
    pub(crate) fn sign(&self, name: &str, hosts: &[&str]) -> [String; 2] {
        let hosts: Vec<String> = hosts.iter().map(|&host| host.to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(hosts).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let paths = [format!("{name}.pem"), format!("{name}.key")].map(|file| self.path(&file));
        std::fs::write(&paths[0], certificate.pem()).unwrap();
        std::fs::write(&paths[1], key.serialize_pem()).unwrap();
        paths
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        // What is left lies among other files of the build.
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
