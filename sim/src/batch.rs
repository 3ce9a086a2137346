//! Batches and witness messages as they lie in memory in the simulation: bytes, and what was read from them once.
//!
//! Invariant: a [`Stored`] exists only for a batch that passed [`BatchDigest::read`] against the tree before it, so
//! nodes share it instead of hashing it again; a copy damaged on the way never becomes one.

use std::rc::Rc;
use std::sync::Arc;

use weft_core::confirm::{BatchDigest, Witness};
use weft_core::{
    BatchBuilder, BatchView, Draft, LaneId, LaneTree, MessageId, MessageView, NetworkId, PayloadKind, Place,
    VerifiedMessage,
};

use crate::keys::{Key, Scheme, verify};

/// An authentic batch.
#[derive(Debug)]
pub struct Stored {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// What confirmation knows of it.
    pub digest: Arc<BatchDigest>,
    /// The lane's tree after it.
    pub after: LaneTree,
}

/// A witness as a message.
#[derive(Debug)]
pub struct WitnessMessage {
    /// Who made it.
    pub validator: u16,
    /// Id of the message.
    pub id: MessageId,
    /// What it says.
    pub witness: Arc<Witness>,
    /// The message.
    pub bytes: Vec<u8>,
}

/// A message and where its parents lie.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// The message.
    pub bytes: Vec<u8>,
    /// Places of its parents.
    pub places: [Place; 2],
}

/// What all messages of a run share.
#[derive(Clone, Copy, Debug)]
pub struct Ledger {
    /// The network.
    pub network: NetworkId,
    /// How it signs.
    pub scheme: Scheme,
}

impl Ledger {
    /// A signed message.
    #[must_use]
    pub fn message(
        &self,
        key: &Key,
        kind: PayloadKind,
        payload: &[u8],
        parents: [(Place, MessageId); 2],
        sequence: u64,
    ) -> Sealed {
        let draft = Draft {
            network: self.network,
            issued_at_us: 0,
            sequence,
            parents: parents.map(|parent| parent.1),
            kind,
            payload,
        };
        let mut bytes = Vec::new();
        let id =
            draft.write_content(&key.public(), &mut bytes).expect("payloads of the simulation are short");
        Draft::finish(&mut bytes, &key.sign(&id.0));
        Sealed { bytes, places: parents.map(|parent| parent.0) }
    }

    /// Seals messages into the batch that follows `before`.
    #[must_use]
    pub fn seal(&self, key: &Key, lane: LaneId, before: &LaneTree, messages: &[Sealed]) -> Rc<Stored> {
        let mut builder = BatchBuilder::new(messages.len() as u32, 0);
        for message in messages {
            let view = MessageView::parse(&message.bytes).expect("it was just written");
            builder
                .push(message.places, &VerifiedMessage::vouch(view))
                .expect("it has room for its messages");
        }
        let mut tree = before.clone();
        let sealed = builder
            .seal(&mut tree, self.network, lane, |text| key.sign(text))
            .expect("lanes of the simulation are short");
        let bytes = sealed.bytes().to_vec();
        let view = BatchView::parse(&bytes).expect("it was just sealed");
        let scheme = self.scheme;
        let (digest, after) = BatchDigest::read(&view, before, &key.public(), |key, text, signature| {
            verify(scheme, key, text, signature)
        })
        .expect("it was just sealed");
        Rc::new(Stored { digest: Arc::new(digest), after, bytes })
    }
}

impl Stored {
    /// The batch, read in place.
    #[must_use]
    pub fn view(&self) -> BatchView<'_> {
        BatchView::parse(&self.bytes).expect("it was read before")
    }

    /// The witness message in it, if confirmation reads one.
    #[must_use]
    pub fn witness(&self) -> Option<Rc<WitnessMessage>> {
        let placed = self.digest.witness()?;
        let bytes = self.view().message_at(placed.position)?.message.bytes().to_vec();
        let (id, witness) = (placed.id, Arc::clone(&placed.witness));
        Some(Rc::new(WitnessMessage { validator: self.digest.lane().0, id, witness, bytes }))
    }
}
