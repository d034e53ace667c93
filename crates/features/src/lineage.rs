//! Lineage: which columns of which contracts feed which features and sets, walked either way.
//!
//! A graph of nodes and edges with the role that one thing plays for the other, so that whatever comes
//! to read something else only has to add its edges.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use headwater_schema::Problem;
use headwater_schema::contract::nearest;

use crate::catalog::{Catalog, CompiledFeature, CompiledSource, CompiledView, FeatureKind};
use crate::model::Model;
use crate::set::{FeatureSet, SetInput};

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeKind {
    Contract,
    /// A contract's column, `contract.column`.
    Column,
    Entity,
    View,
    /// A view's feature, `view.feature`.
    Feature,
    FeatureSet,
    /// A set's feature that is worked out when it is read, `set.feature`.
    OnDemand,
    /// A field that a request for a set brings itself, `set.field`.
    Context,
    /// The outcome column of training sets.
    Label,
    Model,
}

impl NodeKind {
    const ALL: [Self; 10] = [
        Self::Contract,
        Self::Column,
        Self::Entity,
        Self::View,
        Self::Feature,
        Self::FeatureSet,
        Self::OnDemand,
        Self::Context,
        Self::Label,
        Self::Model,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Contract => "contract",
            Self::Column => "column",
            Self::Entity => "entity",
            Self::View => "view",
            Self::Feature => "feature",
            Self::FeatureSet => "feature_set",
            Self::OnDemand => "on_demand",
            Self::Context => "context",
            Self::Label => "label",
            Self::Model => "model",
        }
    }
}

/// A thing that has lineage.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node {
    pub kind: NodeKind,
    pub name: String,
}

impl Node {
    pub fn new(kind: NodeKind, name: impl Into<String>) -> Self {
        Self {
            kind,
            name: name.into(),
        }
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind.as_str(), self.name)
    }
}

/// `from` feeds `to`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Edge {
    pub from: Node,
    pub to: Node,
    /// What `from` is for `to`: `of`, `where`, `key`, `event time`, `rows` (a view's, that another counts),
    /// `expression`, `member`, `column`, `entity`, `context`, `input` and `inputs` (a model's).
    pub role: &'static str,
}

/// Which way to walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// What it feeds.
    Downstream,
    /// What feeds it.
    Upstream,
}

/// Everything that a walk reached, each thing once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Walk {
    /// Nearest first; where the walk began comes first.
    pub nodes: Vec<Node>,
    pub edges: Vec<Edge>,
}

/// The lineage of a catalog.
#[derive(Debug, Clone, Default)]
pub struct Lineage {
    nodes: BTreeSet<Node>,
    down: BTreeMap<Node, BTreeSet<Edge>>,
    up: BTreeMap<Node, BTreeSet<Edge>>,
}

impl Lineage {
    pub fn of(catalog: &Catalog) -> Self {
        let mut lineage = Self::default();
        for contract in catalog.contracts() {
            for field in &contract.fields {
                let column = format!("{}.{}", contract.name, field.name);
                let contract = Node::new(NodeKind::Contract, contract.name.as_ref());
                lineage.add(contract, Node::new(NodeKind::Column, column), "column");
            }
        }
        for entity in catalog.entities() {
            let node = Node::new(NodeKind::Entity, entity.name.as_ref());
            lineage.nodes.insert(node);
        }
        for view in catalog.views() {
            lineage.add_view(catalog, view);
        }
        for set in catalog.sets() {
            lineage.add_set(set);
        }
        for label in catalog.labels() {
            let to = Node::new(NodeKind::Label, label.name.as_ref());
            if let Some(entity) = &label.entity {
                let entity = Node::new(NodeKind::Entity, entity.as_ref());
                lineage.add(entity, to.clone(), "entity");
            }
            lineage.add_feature(catalog, &label.view, &label.view.features[0], &to);
        }
        for model in catalog.models() {
            lineage.add_model(model);
        }
        lineage
    }

    /// Notes that `from` feeds `to`.
    pub fn add(&mut self, from: Node, to: Node, role: &'static str) {
        self.nodes.insert(from.clone());
        self.nodes.insert(to.clone());
        let edge = Edge {
            from: from.clone(),
            to: to.clone(),
            role,
        };
        self.down.entry(from).or_default().insert(edge.clone());
        self.up.entry(to).or_default().insert(edge);
    }

    fn add_view(&mut self, catalog: &Catalog, view: &CompiledView) {
        let node = Node::new(NodeKind::View, view.name.as_ref());
        let entity = Node::new(NodeKind::Entity, view.entity.name.as_ref());
        self.add(entity, node.clone(), "entity");
        for feature in &view.features {
            let to = Node::new(NodeKind::Feature, feature.full_name.as_ref());
            self.add(to.clone(), node.clone(), "member");
            self.add_feature(catalog, view, feature, &to);
        }
    }

    /// What a feature of a view, known as `to`, reads.
    fn add_feature(
        &mut self,
        catalog: &Catalog,
        view: &CompiledView,
        feature: &CompiledFeature,
        to: &Node,
    ) {
        let (slot, among) = match &feature.kind {
            FeatureKind::Aggregate { slot, among, .. } => (*slot, *among),
            FeatureKind::Latest { slot } => (*slot, None),
            FeatureKind::Expression { inputs, .. } => {
                for input in inputs {
                    let read = view.features[*input].full_name.as_ref();
                    let from = Node::new(NodeKind::Feature, read);
                    self.add(from, to.clone(), "expression");
                }
                return;
            }
        };
        let slot = &view.layout.slots[slot];
        for source in &view.sources {
            let filters = [slot.filter, among];
            let filters = filters.into_iter().flatten();
            // A feature that names another source as its own counts none of this one's facts.
            if filters.clone().any(|i| source.inputs[i].is_none()) {
                continue;
            }
            let of = slot.inputs().filter(|i| Some(*i) != slot.filter);
            for column in of.flat_map(|i| columns_of(source, i)) {
                self.add_column(source, column, to, "of");
            }
            for column in filters.flat_map(|i| columns_of(source, i)) {
                self.add_column(source, column, to, "where");
            }
            self.add_source(catalog, source, to);
        }
    }

    /// A model reads the inputs that it names; all of its set where it takes them by their own names.
    fn add_model(&mut self, model: &Model) {
        let to = Node::new(NodeKind::Model, model.name.as_ref());
        let places = model.named_places();
        if places.is_empty() {
            let set = Node::new(NodeKind::FeatureSet, model.set.name.as_ref());
            self.add(set, to, "inputs");
            return;
        }
        for place in places {
            let from = set_node(&model.set, model.set.input_at(place));
            self.add(from, to.clone(), "input");
        }
    }

    fn add_set(&mut self, set: &FeatureSet) {
        let node = Node::new(NodeKind::FeatureSet, set.name.as_ref());
        self.nodes.insert(node.clone());
        let node_of = |input: SetInput<'_>| set_node(set, input);
        for input in set.inputs() {
            let role = match input {
                SetInput::Context(_) => "context",
                SetInput::Feature(_) | SetInput::OnDemand(_) => "member",
            };
            self.add(node_of(input), node.clone(), role);
        }
        for feature in &set.on_demand {
            for input in set.read_by(feature) {
                let to = node_of(SetInput::OnDemand(feature));
                self.add(node_of(input), to, "expression");
            }
        }
    }

    /// What every feature of a source reads: its `where`, the entity's keys, the event time; where another
    /// view makes its rows, also what says which rows there are.
    fn add_source(&mut self, catalog: &Catalog, source: &CompiledSource, to: &Node) {
        if let Some(upstream) = &source.upstream {
            let view = Node::new(NodeKind::View, upstream.view.name.as_ref());
            self.add(view, to.clone(), "rows");
            self.add_source(catalog, &upstream.view.sources[upstream.source], to);
        }
        let filter = source.filter.iter().flat_map(|f| f.columns().to_vec());
        for column in filter {
            self.add_column(source, column, to, "where");
        }
        let Some(contract) = catalog.contract(&source.contract) else {
            return;
        };
        for key in &source.key_columns {
            let column = format!("{}.{key}", source.contract);
            self.add(Node::new(NodeKind::Column, column), to.clone(), "key");
        }
        let time = &contract.fields[contract.event_time].name;
        let column = format!("{}.{time}", source.contract);
        self.add(
            Node::new(NodeKind::Column, column),
            to.clone(),
            "event time",
        );
    }

    fn add_column(
        &mut self,
        source: &CompiledSource,
        column: usize,
        to: &Node,
        role: &'static str,
    ) {
        let feature = source.upstream.as_ref().and_then(|u| u.feature(column));
        if let Some(feature) = feature {
            let from = Node::new(NodeKind::Feature, feature.full_name.as_ref());
            self.add(from, to.clone(), role);
        } else if let Some(name) = &source.stored[column] {
            let column = format!("{}.{name}", source.contract);
            self.add(Node::new(NodeKind::Column, column), to.clone(), role);
        }
    }

    /// The thing that a name means: bare where only one thing has it, else `kind:name`.
    pub fn find(&self, name: &str) -> Result<Node, Problem> {
        let kind = name.split_once(':').and_then(|(kind, rest)| {
            let kind = if kind == "set" { "feature_set" } else { kind };
            let kind = NodeKind::ALL.into_iter().find(|k| k.as_str() == kind)?;
            Some((kind, rest))
        });
        let is = |node: &&Node| match kind {
            Some((kind, rest)) => node.kind == kind && node.name == rest,
            None => node.name == name,
        };
        let found: Vec<&Node> = self.nodes.iter().filter(is).collect();
        match found.as_slice() {
            [node] => Ok((*node).clone()),
            [] => {
                let near = nearest(name, self.nodes.iter().map(|n| n.name.as_str()));
                let hint = near.map_or_else(
                    || "name a contract, contract.column, entity, view, view.feature, feature set, set.feature, set.field, label or model".to_owned(),
                    |near| format!("did you mean `{near}`?"),
                );
                Err(Problem::user("not-found", format!("nothing is called `{name}`")).hint(hint))
            }
            several => {
                let names: Vec<String> = several.iter().map(ToString::to_string).collect();
                let title = format!("`{name}` is the name of several things");
                Err(Problem::user("ambiguous-name", title)
                    .hint(format!("say which: {}", names.join(", "))))
            }
        }
    }

    /// Everything that a thing feeds, or that feeds it. A view is where a walk begins or ends and never
    /// its way: what reads one of its features doesn't read the others.
    pub fn walk(&self, start: &Node, direction: Direction) -> Walk {
        let starts = self.starts(start, direction);
        let passable = |node: &Node| node.kind != NodeKind::View || starts.contains(node);
        let mut walk = Walk::default();
        let mut seen: BTreeSet<Node> = starts.iter().cloned().collect();
        let mut waiting: VecDeque<Node> = starts.iter().cloned().collect();
        while let Some(node) = waiting.pop_front() {
            let edges = match direction {
                Direction::Downstream => self.down.get(&node),
                Direction::Upstream => self.up.get(&node),
            };
            let edges = edges.filter(|_| passable(&node));
            walk.nodes.push(node);
            for edge in edges.into_iter().flatten() {
                let next = match direction {
                    Direction::Downstream => &edge.to,
                    Direction::Upstream => &edge.from,
                };
                walk.edges.push(edge.clone());
                if seen.insert(next.clone()) {
                    waiting.push_back(next.clone());
                }
            }
        }
        walk
    }

    /// A view or an entity feeds what its features feed.
    fn starts(&self, start: &Node, direction: Direction) -> Vec<Node> {
        let mut starts = vec![start.clone()];
        if direction == Direction::Upstream {
            return starts;
        }
        let of = |edges: Option<&BTreeSet<Edge>>, kind: NodeKind| -> Vec<Node> {
            let edges = edges.into_iter().flatten().filter(|e| e.role == "member");
            let from = edges.map(|e| e.from.clone());
            from.filter(|n| n.kind == kind).collect()
        };
        let views = match start.kind {
            NodeKind::View => vec![start.clone()],
            NodeKind::Entity => {
                let edges = self.down.get(start).into_iter().flatten();
                let views = edges.filter(|e| e.to.kind == NodeKind::View);
                views.map(|e| e.to.clone()).collect()
            }
            _ => return starts,
        };
        for view in views {
            starts.extend(of(self.up.get(&view), NodeKind::Feature));
            if !starts.contains(&view) {
                starts.push(view);
            }
        }
        starts
    }
}

/// What a value of a set's rows is.
fn set_node(set: &FeatureSet, input: SetInput<'_>) -> Node {
    match input {
        SetInput::Feature(feature) => Node::new(NodeKind::Feature, feature.full_name.as_ref()),
        SetInput::Context(field) => {
            Node::new(NodeKind::Context, format!("{}.{}", set.name, field.name))
        }
        SetInput::OnDemand(feature) => Node::new(NodeKind::OnDemand, feature.full_name.as_ref()),
    }
}

/// The columns of a source's rows that one of its inputs reads, by place.
fn columns_of(source: &CompiledSource, input: usize) -> Vec<usize> {
    let expression = source.inputs.get(input).and_then(Option::as_ref);
    expression.map_or_else(Vec::new, |e| e.columns().to_vec())
}
