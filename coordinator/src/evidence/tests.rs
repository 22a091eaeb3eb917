//! A bundle that was signed, and everything that can be done to it.

use ed25519_dalek::{Signer as _, SigningKey};
use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;
use tritmark_proto::{
    bundle::{AGREEMENT, JobState, MEASUREMENTS},
    identity::{Claim, Role},
    job::{AttemptId, Job},
};

use super::*;
use crate::{
    identity::{Authority, CertificateRequest, Validity},
    store::{AttemptEnd, AttemptState, Store, StoredRun},
    testing::{
        accuracy, agent, agent_id, facts, item, job, latency, machine, reading, record, run, start,
        store, tokens,
    },
};

/// An agent's key and its certificate chain.
struct Agent {
    key: SigningKey,
    chain_pem: String,
}

impl Agent {
    fn enrolled(authority: &Authority) -> Self {
        let key = SigningKey::from_bytes(&[7; 32]);
        let claims = [
            Claim::Role {
                role: Role::Agent,
                name: "rack-1".into(),
            },
            Claim::AgentId(agent_id(1).parse().unwrap()),
            Claim::SigningKey(*key.verifying_key().as_bytes()),
        ];
        let tls = KeyPair::generate().unwrap();
        let request = CertificateParams::default()
            .serialize_request(&tls)
            .unwrap();
        let request = CertificateRequest::parse(request.der()).unwrap();
        let own = authority
            .issue_client(&request, &claims, Validity::days(1))
            .unwrap();
        Self {
            key,
            chain_pem: format!("{}{}", own.certificate_pem, authority.certificate_pem()),
        }
    }

    fn sign(&self, attempt: AttemptId, job: &Job, records: &[Record]) -> SignedManifest {
        let mut hasher = RecordsHasher::default();
        for record in records {
            hasher.add(&wire::Record::from(record.clone()).encode_to_vec());
        }
        let (n_records, records_hash) = hasher.finish();
        let manifest = AttemptManifest {
            run_id: attempt.job.run.to_string(),
            job_index: attempt.job.index,
            attempt: attempt.attempt.get(),
            fence: attempt.fence,
            agent_id: agent_id(1),
            weights_hash: "w".into(),
            binary_hash: vec![1; 32],
            suite_hash: suite_hash(job.clone().into()).to_vec(),
            environment_hash: environment_hash(&machine("machine-1").into()).to_vec(),
            n_records,
            records_hash: records_hash.to_vec(),
            succeeded: true,
            version: "0.1.0".into(),
        };
        self.signed(&manifest)
    }

    fn signed(&self, manifest: &AttemptManifest) -> SignedManifest {
        let manifest = manifest.encode_to_vec();
        let signature = self.key.sign(&[ATTEMPT_CONTEXT, &manifest].concat());
        SignedManifest {
            public_key: self.key.verifying_key().as_bytes().to_vec(),
            signature: signature.to_bytes().to_vec(),
            certificate_pem: self.chain_pem.clone(),
            manifest,
        }
    }
}

/// A run of two jobs, signed, as a bundle.
struct Signed {
    folder: TempDir,
    ca: PathBuf,
    agent: Agent,
}

async fn signed() -> Signed {
    let folder = TempDir::new().unwrap();
    let authority = Authority::create(&folder.path().join("ca"), 1).unwrap();
    let own = Agent::enrolled(&authority);
    let store = store(folder.path()).await;
    let run: StoredRun = run("signed");
    let jobs = vec![
        job(run.id, 0, "m", None, latency()),
        job(run.id, 1, "m", None, accuracy()),
    ];
    store.add_run(&run, &jobs).await.unwrap();
    store.put_agent(&agent(1)).await.unwrap();
    let bodies = [
        vec![facts(None), reading(12.5), tokens(), reading(13.0)],
        vec![facts(Some(3)), item(0, -1.0), item(1, -2.0), item(2, -3.0)],
    ];
    for (job, bodies) in jobs.iter().zip(bodies) {
        let attempt = start(&store, job.id, 1).await;
        let records: Vec<Record> = (0..).zip(bodies).map(|(n, body)| record(n, body)).collect();
        store.add_records(attempt, &records).await.unwrap();
        let word = own.sign(attempt, job, &records).encode_to_vec();
        store.put_signature(attempt, &word).await.unwrap();
        let end = AttemptEnd {
            state: AttemptState::Succeeded,
            job_state: JobState::Succeeded,
            at_unix_ns: 5_000,
            n_records: Some(4),
            failure: None,
            counts: true,
            voids_earlier: false,
            if_lease_over_by_unix_ns: None,
        };
        store.end_attempt(attempt, &end).await.unwrap();
        // The agent has not heard it and says it again, perhaps something else: the first counts.
        store.put_signature(attempt, b"other").await.unwrap();
    }
    bundle::write(&store, run.id, &folder.path().join("bundle"))
        .await
        .unwrap();
    Signed {
        ca: folder.path().join("ca/ca.pem"),
        folder,
        agent: own,
    }
}

impl Signed {
    fn bundle(&self) -> PathBuf {
        self.folder.path().join("bundle")
    }

    fn verify(&self) -> Verification {
        verify(&self.bundle(), Some(&self.ca)).unwrap()
    }

    /// Changes the evidence and returns what is then said of attempts, with their jobs.
    fn tampered(&self, change: impl FnOnce(&mut Vec<AttemptEvidence>)) -> Vec<(u32, String)> {
        let path = self.bundle().join(EVIDENCE);
        let whole = fs::read(&path).unwrap();
        let (mut evidence, damage) = parse(&whole);
        assert_eq!(damage, None);
        change(&mut evidence);
        fs::write(&path, file(&evidence)).unwrap();
        let verification = self.verify();
        assert!(!verification.is_sound(), "{verification:?}");
        fs::write(&path, whole).unwrap();
        verification
            .attempts
            .into_iter()
            .flat_map(|attempt| {
                let job = attempt.job_index;
                attempt.faults.into_iter().map(move |fault| (job, fault))
            })
            .collect()
    }
}

#[tokio::test]
async fn a_signed_bundle_is_sound() {
    let signed = signed().await;
    let verification = signed.verify();
    assert!(
        verification.is_sound() && verification.is_whole(),
        "{verification:#?}"
    );
    assert_eq!(verification.attempts.len(), 2);
    for attempt in &verification.attempts {
        assert_eq!(attempt.n_records, 4);
        assert!(
            matches!(&attempt.signer, Signer::Enrolled { name, .. } if name == "rack-1"),
            "{attempt:?}"
        );
    }
}

#[tokio::test]
async fn a_changed_dropped_or_swapped_record_is_found_and_its_job_named() {
    let signed = signed().await;
    let not_signed = (1, "the records are not the signed ones".to_owned());
    // Any bit of any record: some still make a record, some do not.
    for (place, at) in [(1, 3), (2, 10), (3, 25)] {
        let faults = signed.tampered(|evidence| {
            let bytes = &mut evidence[1].records[place];
            let at = at % bytes.len();
            bytes[at] ^= 1;
        });
        assert!(faults.contains(&not_signed), "{faults:?}");
        assert!(faults.iter().all(|(job, _)| *job == 1), "{faults:?}");
    }
    let faults = signed.tampered(|evidence| {
        evidence[1].records.remove(2);
    });
    assert!(faults.contains(&not_signed), "{faults:?}");
    let gap = "record 2 is missing or out of order: 3 stands there";
    assert!(faults.contains(&(1, gap.to_owned())), "{faults:?}");
    let faults = signed.tampered(|evidence| evidence[1].records.swap(1, 2));
    assert!(faults.contains(&not_signed), "{faults:?}");
    let faults = signed.tampered(|evidence| {
        evidence[1].records.pop();
    });
    let number = "the number of records is not the signed one";
    assert!(faults.contains(&(1, number.to_owned())), "{faults:?}");
}

#[tokio::test]
async fn a_key_that_is_not_the_certificates_signs_nothing() {
    let signed = signed().await;
    let foreign = |chain_pem: String| Agent {
        key: SigningKey::from_bytes(&[8; 32]),
        chain_pem,
    };
    let resign = |evidence: &mut Vec<AttemptEvidence>, agent: &Agent| {
        let word = evidence[0].signed.as_mut().unwrap();
        let said = AttemptManifest::decode(word.manifest.as_slice()).unwrap();
        *word = agent.signed(&said);
    };
    let faults = signed.tampered(|evidence| {
        resign(evidence, &foreign(signed.agent.chain_pem.clone()));
    });
    assert_eq!(
        faults,
        [(0, "the signing key is not the certificate's".to_owned())]
    );
    let faults = signed.tampered(|evidence| resign(evidence, &foreign(String::new())));
    assert_eq!(faults, [(0, "the agent was never enrolled".to_owned())]);
    // An authority of the forger's own.
    let elsewhere = Authority::create(&signed.folder.path().join("other"), 1).unwrap();
    let forger = Agent::enrolled(&elsewhere);
    let faults = signed.tampered(|evidence| resign(evidence, &forger));
    assert_eq!(
        faults,
        [(0, "the certificate is not of this authority".to_owned())]
    );
    let faults = signed.tampered(|evidence| {
        evidence[0].signed.as_mut().unwrap().signature[5] ^= 1;
    });
    assert_eq!(faults, [(0, "the signature is wrong".to_owned())]);
}

#[tokio::test]
async fn a_signature_is_for_its_attempt_alone() {
    let signed = signed().await;
    let faults = signed.tampered(|evidence| {
        evidence[0].signed = evidence[1].signed.clone();
    });
    let other_job = (0, "the signature is for another job".to_owned());
    assert!(faults.contains(&other_job), "{faults:?}");
}

#[tokio::test]
async fn tables_and_manifest_must_follow_from_the_records() {
    let signed = signed().await;
    let bundle = signed.bundle();
    let table = bundle.join(MEASUREMENTS);
    let whole = fs::read(&table).unwrap();
    fs::write(&table, fs::read(bundle.join("tokens.parquet")).unwrap()).unwrap();
    let faults = signed.verify().faults;
    assert_eq!(
        faults,
        ["measurements.parquet: is not what the records say"]
    );
    fs::write(&table, whole).unwrap();

    let manifest = bundle.join(MANIFEST);
    let text = fs::read_to_string(&manifest).unwrap();
    for (from, to, said) in [
        (
            "\"kernel\": \"auto\"",
            "\"kernel\": \"other\"",
            "the job is not the signed one",
        ),
        (
            "\"cpu_model\": \"A CPU\"",
            "\"cpu_model\": \"B CPU\"",
            "the machine is not the signed one",
        ),
    ] {
        assert!(text.contains(from), "{text}");
        fs::write(&manifest, text.replacen(from, to, 1)).unwrap();
        let attempts = signed.verify().attempts;
        assert!(
            attempts[0].faults.contains(&said.to_owned()),
            "{attempts:?}"
        );
    }
}

#[tokio::test]
async fn a_dropped_attempt_is_missed() {
    let signed = signed().await;
    let path = signed.bundle().join(EVIDENCE);
    let (mut evidence, _) = parse(&fs::read(&path).unwrap());
    evidence.remove(1);
    fs::write(&path, file(&evidence)).unwrap();
    let faults = signed.verify().faults;
    assert!(
        faults.contains(&"items.parquet: is not what the records say".to_owned()),
        "{faults:?}"
    );
}

#[tokio::test]
async fn what_nobody_signed_is_no_fault_and_not_whole() {
    let signed = signed().await;
    let path = signed.bundle().join(EVIDENCE);
    let (mut evidence, _) = parse(&fs::read(&path).unwrap());
    evidence[0].signed = None;
    fs::write(&path, file(&evidence)).unwrap();
    let verification = signed.verify();
    assert!(verification.is_sound() && !verification.is_whole());
    assert_eq!(verification.attempts[0].signer, Signer::Nobody);
    fs::remove_file(&path).unwrap();
    let verification = signed.verify();
    assert!(verification.is_sound() && !verification.is_whole());
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_evidence_or_a_fault(bytes: Vec<u8>) {
        let (evidence, fault) = parse(&bytes);
        proptest::prop_assert!(fault.is_some() || file(&evidence).len() <= bytes.len());
        let word = SignedManifest {
            manifest: bytes.clone(),
            public_key: bytes.clone(),
            signature: bytes.clone(),
            certificate_pem: String::from_utf8_lossy(&bytes).into_owned(),
        };
        proptest::prop_assert!(signature(&word, None).is_err());
    }
}

#[tokio::test]
async fn a_bundle_of_before_agreement_is_sound_without_its_table_and_a_later_one_is_not() {
    let signed = signed().await;
    let folder = signed.folder.path().join("bundle");
    fs::remove_file(folder.join(AGREEMENT)).unwrap();
    let found = verify(&folder, None).unwrap();
    assert!(!found.is_sound());
    assert!(found.faults[0].starts_with(AGREEMENT), "{found:?}");
    let path = folder.join(MANIFEST);
    let manifest = fs::read_to_string(&path).unwrap();
    let version = format!(
        "\"format_version\": {}",
        tritmark_proto::bundle::FORMAT_VERSION
    );
    let earlier = manifest.replace(&version, "\"format_version\": 4");
    assert_ne!(earlier, manifest);
    fs::write(&path, earlier).unwrap();
    assert!(verify(&folder, None).unwrap().is_sound());
}
