//! Who may be a peer.

use super::*;
use slowdb_disk::SimDisk;

const OURS: [u8; 16] = [1; 16];

fn founding(nodes: &[&str]) -> Founding {
    Founding {
        nodes: nodes.iter().map(|node| ((*node).to_owned(), format!("{node}.example:8000"))).collect(),
        zone: None,
        dimension: 4,
        metric: Metric::L2,
        num_shards: 2,
        virtual_nodes: 3,
        replication_factor: 3,
        weight: 1,
    }
}

fn identity(cluster: Option<[u8; 16]>) -> Identity {
    Identity {
        node: "ada".to_owned(),
        storage: [5; 16],
        cluster: cluster.map(ClusterId),
        founding: founding(&["ada", "bob", "cyd"]),
        joined: None,
        known: Vec::new(),
        peers: BTreeMap::new(),
    }
}

fn own(disk: &SimDisk, cluster: Option<[u8; 16]>) -> Own {
    let identity = identity(cluster);
    identity.save(disk).expect("the disk works");
    Own::new(Arc::new(disk.clone()), identity, 42)
}

fn hello(node: &str) -> Hello {
    Hello {
        cluster: OURS,
        storage: [9; 16],
        instance: 1,
        node: NodeId::new(node),
        to: NodeId::new("ada"),
        note: String::new(),
    }
}

fn refusal(own: &Own, hello: &Hello) -> String {
    own.admit(hello).expect_err("it may not be a peer")
}

#[test]
fn it_comes_back_as_it_was() {
    let disk = SimDisk::new();
    assert_eq!(Identity::load(&disk).expect("no file is no error"), None);
    let identity = identity(Some(OURS));
    identity.save(&disk).expect("the disk works");
    assert_eq!(Identity::load(&disk).expect("it is whole"), Some(identity));
    disk.flip_bit("identity", 30, 0).expect("it is in the file");
    assert!(matches!(Identity::load(&disk), Err(IdentityError::Damaged(_))));
}

#[test]
fn a_founding_node_is_a_peer() {
    let own = own(&SimDisk::new(), Some(OURS));
    assert_eq!(own.admit(&hello("bob")), Ok(()));
    assert_eq!(own.admit(&hello("cyd")), Ok(()));
    let ours = own.hello(&NodeId::new("bob"));
    assert_eq!((ours.cluster, ours.storage, ours.instance), (OURS, [5; 16], 42));
    assert_eq!((ours.node.as_str(), ours.to.as_str()), ("ada", "bob"));
}

#[test]
fn strangers_are_told_why() {
    let own = own(&SimDisk::new(), Some(OURS));
    assert!(refusal(&own, &hello("eve")).contains("node eve is not part of this cluster"));
    assert!(refusal(&own, &hello("ada")).contains("there is a node ada already"));
    let elsewhere = Hello { to: NodeId::new("cyd"), ..hello("bob") };
    assert!(refusal(&own, &elsewhere).contains("this is node ada, not cyd"));
    let other = Hello { cluster: [2; 16], ..hello("bob") };
    assert!(refusal(&own, &other).contains("belongs to cluster 0202"), "{}", refusal(&own, &other));
    assert!(own.get().peers.is_empty(), "a refused node is not remembered");
}

#[test]
fn while_a_cluster_is_being_founded_not_everybody_knows_its_id() {
    let unborn = Hello { cluster: [0; 16], ..hello("bob") };
    assert_eq!(own(&SimDisk::new(), Some(OURS)).admit(&unborn), Ok(()));
    assert_eq!(own(&SimDisk::new(), None).admit(&hello("bob")), Ok(()));
    assert_eq!(own(&SimDisk::new(), None).admit(&unborn), Ok(()));
}

#[test]
fn a_wiped_disk_is_refused_even_after_a_restart_and_a_crash() {
    let disk = SimDisk::new();
    assert_eq!(own(&disk, Some(OURS)).admit(&hello("bob")), Ok(()));
    // Everything that was not synced is lost: the memory of bob's disk must have been.
    let disk = disk.crash(&mut || 0);
    let again = Identity::load(&disk).expect("it is whole").expect("it is there");
    let own = Own::new(Arc::new(disk), again, 43);
    let wiped = Hello { storage: [10; 16], ..hello("bob") };
    assert!(refusal(&own, &wiped).contains("another storage path"));
    let unborn = Hello { cluster: [0; 16], ..wiped };
    assert!(refusal(&own, &unborn).contains("another storage path"), "with no cluster either");
    assert_eq!(own.admit(&hello("bob")), Ok(()), "with its own disk it is welcome");
}

#[test]
fn who_cannot_be_remembered_is_not_let_in() {
    let disk = SimDisk::new();
    let own = own(&disk, Some(OURS));
    disk.fail_sync_in(0);
    assert!(refusal(&own, &hello("bob")).contains("cannot remember node bob"));
    assert!(own.get().peers.is_empty());
    assert_eq!(own.admit(&hello("bob")), Ok(()), "the next time it can be");
}

#[test]
fn joining_is_durable() {
    let disk = SimDisk::new();
    let own = own(&disk, None);
    own.join(ClusterId(OURS)).expect("the disk works");
    let disk = disk.crash(&mut || 0);
    let again = Identity::load(&disk).expect("it is whole").expect("it is there");
    assert_eq!(again.cluster, Some(ClusterId(OURS)));
}

#[test]
fn who_the_nodes_are_is_the_catalogs_to_say() {
    let disk = SimDisk::new();
    let own = own(&disk, Some(OURS));
    assert_eq!(own.admit(&hello("bob")), Ok(()));
    let mut catalog = crate::catalog::tests::founded(&["ada", "cyd", "dee"], 1, 3);
    own.know(&catalog);
    assert_eq!(own.admit(&hello("dee")), Ok(()), "it joined");
    assert!(refusal(&own, &hello("bob")).contains("was removed from it"), "a founding node that was removed");
    assert!(!own.get().peers.contains_key("bob"), "its storage is forgotten");

    let disk = disk.crash(&mut || 0);
    let again = Identity::load(&disk).expect("it is whole").expect("it is there");
    let known = [("cyd", "cyd.example:8000"), ("dee", "dee.example:8000")];
    assert_eq!(again.known, known.map(|(id, address)| (id.to_owned(), address.to_owned())));
    let own = Own::new(Arc::new(disk.clone()), again, 43);
    assert!(refusal(&own, &hello("bob")).contains("was removed from it"), "after a restart too");

    catalog.nodes[1].address = "elsewhere:1".to_owned();
    disk.fail_sync_in(0);
    own.know(&catalog);
    assert_eq!(own.get().known[0].1, "cyd.example:8000", "what cannot be written down is not known");
    own.know(&catalog);
    assert_eq!(own.get().known[0].1, "elsewhere:1");
}

#[test]
fn a_node_that_moved_says_so_and_is_spoken_to_there() {
    let disk = SimDisk::new();
    let own = own(&disk, Some(OURS));
    let mut catalog = crate::catalog::tests::founded(&["ada", "bob"], 1, 2);
    catalog.epoch = 7;
    own.know(&catalog);
    assert_eq!(own.admit(&hello("bob")), Ok(()));
    assert_eq!((own.take_met(), own.addresses().len()), (None, 0));
    let moved = |address: &str| Hello { note: format!("\n7\n{address}\nmoved"), ..hello("bob") };
    assert_eq!(own.admit(&moved("elsewhere:1")), Ok(()));
    let there = vec![("bob".to_owned(), "elsewhere:1".to_owned())];
    assert_eq!(own.take_met(), Some(there.clone()));
    assert_eq!(own.others(&catalog, "ada"), there, "whatever the catalog says");
    // Nothing new, nonsense, and somebody else: nothing to be done.
    assert_eq!(own.admit(&moved("elsewhere:1")), Ok(()));
    assert_eq!(own.take_met(), None);
    refusal(&own, &Hello { storage: [10; 16], ..moved("thief:1") });
    assert_eq!(own.others(&catalog, "ada"), there);
    assert_eq!(own.admit(&moved("no address")), Ok(()));
    assert_eq!((own.take_met(), own.addresses().len()), (None, 0));

    // What this node says of itself, also when its catalog, which may be behind, agrees.
    let identity = own.get();
    let own = Own::new(Arc::new(disk), identity, 43).at(Some("new:1".to_owned()));
    own.know(&catalog);
    assert_eq!(own.hello(&NodeId::new("bob")).note, "\n7\nnew:1\nmoved");
    catalog.nodes[0].address = "new:1".to_owned();
    own.know(&catalog);
    assert_eq!(own.hello(&NodeId::new("bob")).note, "\n7\nnew:1\nmoved");
}

#[test]
fn what_a_node_says_is_remembered_only_once_it_is_let_in() {
    let disk = SimDisk::new();
    let own = own(&disk, Some(OURS));
    let mut catalog = crate::catalog::tests::founded(&["ada", "bob"], 1, 2);
    catalog.epoch = 7;
    own.know(&catalog);
    assert_eq!(own.admit(&hello("bob")), Ok(()));
    let before = own.get();
    let copy = Hello { instance: 2, note: "\n7\ncopy:1\nmoved".to_owned(), ..hello("bob") };
    assert_eq!(own.check(&copy), Ok(()), "it has the right storage");
    assert_eq!((own.get(), own.take_met()), (before, None));
    assert_eq!(own.others(&catalog, "ada"), [("bob".to_owned(), catalog.nodes[1].address.clone())]);
}

#[test]
fn where_a_node_had_moved_to_is_not_where_another_of_its_name_is() {
    let disk = SimDisk::new();
    let own = own(&disk, Some(OURS));
    let mut catalog = crate::catalog::tests::founded(&["ada", "bob"], 1, 2);
    own.know(&catalog);
    let moved = Hello { note: "\n0\nelsewhere:1\nmoved".to_owned(), ..hello("bob") };
    assert_eq!(own.admit(&moved), Ok(()));
    assert_eq!(own.others(&catalog, "ada")[0].1, "elsewhere:1");
    // It was removed, and joined with an empty disk.
    catalog.epoch += 2;
    catalog.nodes[1].storage = Some([77; 16]);
    catalog.nodes[1].address = "third:1".to_owned();
    own.know(&catalog);
    assert_eq!(own.others(&catalog, "ada"), [("bob".to_owned(), "third:1".to_owned())]);
    assert_eq!(own.addresses().len(), 0);
    assert_eq!(own.get().known, [("bob".to_owned(), "third:1".to_owned())]);
}

#[test]
fn who_shows_a_later_catalog_is_believed() {
    let disk = SimDisk::new();
    let own = own(&disk, Some(OURS));
    assert_eq!(own.admit(&hello("bob")), Ok(()));
    let later = |node: &str| Hello { note: "east\n7\nfay.example:8000".to_owned(), ..hello(node) };
    let other = Hello { cluster: [2; 16], ..later("fay") };
    assert!(refusal(&own, &other).contains("node fay is not part of this cluster"));
    let unborn = Hello { cluster: [0; 16], ..later("fay") };
    assert!(refusal(&own, &unborn).contains("node fay is not part of this cluster"));
    assert_eq!(own.take_met(), None);
    assert_eq!(own.admit(&later("fay")), Ok(()));
    let met = own.take_met().expect("it is to be spoken to");
    assert!(met.contains(&("fay".to_owned(), "fay.example:8000".to_owned())), "{met:?}");
    assert_eq!((own.take_met(), own.zones().get("fay").map(String::as_str)), (None, Some("east")));
    // Its disk was lost, and it joined anew, while this node was away.
    let anew = Hello { storage: [10; 16], ..later("bob") };
    assert!(
        refusal(&own, &Hello { note: "east".to_owned(), ..anew.clone() }).contains("another storage path")
    );
    assert_eq!(own.admit(&anew), Ok(()));
}

#[test]
fn what_a_node_says_of_itself_is_short_and_read_with_care() {
    let said = |zone, epoch, address| Said { zone, epoch, address, moved: false }.write();
    assert_eq!(said("east", 0, ""), "east");
    assert_eq!(said("east", 7, "a:1"), "east\n7\na:1");
    assert_eq!(said("east", 7, &"a".repeat(300)), "east");
    for (note, zone, epoch, address, moved) in [
        ("", "", 0, "", false),
        ("east", "east", 0, "", false),
        ("\nx\ny", "", 0, "y", false),
        ("\n3", "", 3, "", false),
        ("a\n4\nb\nc", "a", 4, "b", false),
        ("a\n4\nb\nmoved", "a", 4, "b", false),
        ("a\n4\nb:1\nmoved\n", "a", 4, "b:1", true),
    ] {
        let said = Said::read(note);
        assert_eq!(
            (said.zone, said.epoch, said.address, said.moved),
            (zone, epoch, address, moved),
            "{note:?}"
        );
    }
}

#[test]
fn fuzz_said() {
    let said =
        |zone, epoch, moved| Said { zone, epoch, address: "localhost:8000", moved }.write().into_bytes();
    let corpus = [said("", 0, false), said("east", 0, false), said("east", 7, false), said("", 9, true)];
    slowdb_fuzz::Target::new("fuzz_said", corpus).run(|bytes| {
        let Ok(note) = str::from_utf8(bytes) else { return false };
        let said = Said::read(note);
        let text = said.write();
        let again = Said::read(&text);
        assert_eq!(again.zone, said.zone);
        if text.contains('\n') {
            assert_eq!((again.epoch, again.address, again.moved), (said.epoch, said.address, said.moved));
        }
        true
    });
}
