"""first schema"""

from alembic import op
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

revision = '0001'
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:

    op.create_table('bases',
    sa.Column('name', sa.String(length=300), nullable=False),
    sa.Column('revision', sa.String(length=200), nullable=True),
    sa.Column('digest', sa.String(length=64), nullable=False),
    sa.Column('location', sa.Text(), nullable=False),
    sa.Column('family', sa.String(length=60), nullable=False),
    sa.Column('layers', sa.Integer(), nullable=False),
    sa.Column('d_model', sa.Integer(), nullable=False),
    sa.Column('status', sa.String(length=20), nullable=False),
    sa.Column('deprecated_on', sa.Date(), nullable=True),
    sa.Column('successor_id', sa.Integer(), nullable=True),
    sa.Column('id', sa.Integer(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.CheckConstraint("status IN ('active', 'deprecated', 'retired')", name=op.f('ck_bases_status')),
    sa.ForeignKeyConstraint(['successor_id'], ['bases.id'], name=op.f('fk_bases_successor_id_bases')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_bases')),
    sa.UniqueConstraint('name', name=op.f('uq_bases_name'))
    )
    with op.batch_alter_table('bases', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_bases_digest'), ['digest'], unique=False)

    op.create_table('evaluations',
    sa.Column('base_digest', sa.String(length=64), nullable=False),
    sa.Column('adapter_digest', sa.String(length=64), nullable=False),
    sa.Column('dataset_digest', sa.String(length=64), nullable=False),
    sa.Column('dtype', sa.String(length=20), nullable=False),
    sa.Column('rows', sa.Integer(), nullable=False),
    sa.Column('mean_loss', sa.Double(), nullable=False),
    sa.Column('losses', sa.JSON().with_variant(postgresql.JSONB(), 'postgresql'), nullable=False),
    sa.Column('id', sa.Integer(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_evaluations')),
    sa.UniqueConstraint('base_digest', 'adapter_digest', 'dataset_digest', 'dtype', name=op.f('uq_evaluations_base_digest'))
    )
    op.create_table('factor_sets',
    sa.Column('base_digest', sa.String(length=64), nullable=False),
    sa.Column('spec', sa.String(length=100), nullable=False),
    sa.Column('group_index', sa.Integer(), nullable=False),
    sa.Column('first_layer', sa.Integer(), nullable=False),
    sa.Column('last_layer', sa.Integer(), nullable=False),
    sa.Column('store_key', sa.Text(), nullable=False),
    sa.Column('sha256', sa.String(length=64), nullable=False),
    sa.Column('size_bytes', sa.BigInteger(), nullable=False),
    sa.Column('rank', sa.Integer(), nullable=False),
    sa.Column('seconds', sa.Double(), nullable=False),
    sa.Column('id', sa.Integer(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_factor_sets')),
    sa.UniqueConstraint('base_digest', 'spec', 'first_layer', 'last_layer', name=op.f('uq_factor_sets_base_digest'))
    )
    op.create_table('adapters',
    sa.Column('name', sa.String(length=300), nullable=False),
    sa.Column('digest', sa.String(length=64), nullable=False),
    sa.Column('owner', sa.String(length=200), nullable=True),
    sa.Column('base_id', sa.Integer(), nullable=False),
    sa.Column('location', sa.Text(), nullable=False),
    sa.Column('origin', sa.String(length=30), nullable=False),
    sa.Column('rank', sa.Integer(), nullable=False),
    sa.Column('scaling', sa.Double(), nullable=True),
    sa.Column('variant', sa.String(length=30), nullable=False),
    sa.Column('evaluation', sa.Text(), nullable=True),
    sa.Column('id', sa.Integer(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['base_id'], ['bases.id'], name=op.f('fk_adapters_base_id_bases')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_adapters')),
    sa.UniqueConstraint('name', 'digest', name=op.f('uq_adapters_name'))
    )
    with op.batch_alter_table('adapters', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_adapters_base_id'), ['base_id'], unique=False)

    op.create_table('migrations',
    sa.Column('request_digest', sa.String(length=64), nullable=False),
    sa.Column('source_base_id', sa.Integer(), nullable=False),
    sa.Column('method', sa.String(length=40), nullable=False),
    sa.Column('spec', sa.JSON().with_variant(postgresql.JSONB(), 'postgresql'), nullable=False),
    sa.Column('status', sa.String(length=20), nullable=False),
    sa.Column('started_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('finished_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('requested_by', sa.String(length=200), nullable=True),
    sa.Column('flow_run', sa.String(length=100), nullable=True),
    sa.Column('id', sa.Integer(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.CheckConstraint("status IN ('planned', 'running', 'finished', 'failed')", name=op.f('ck_migrations_status')),
    sa.ForeignKeyConstraint(['source_base_id'], ['bases.id'], name=op.f('fk_migrations_source_base_id_bases')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_migrations')),
    sa.UniqueConstraint('request_digest', name=op.f('uq_migrations_request_digest'))
    )
    op.create_table('items',
    sa.Column('migration_id', sa.Integer(), nullable=False),
    sa.Column('adapter_id', sa.Integer(), nullable=True),
    sa.Column('adapter_name', sa.String(length=300), nullable=False),
    sa.Column('adapter_location', sa.Text(), nullable=False),
    sa.Column('target_base_id', sa.Integer(), nullable=False),
    sa.Column('status', sa.String(length=20), nullable=False),
    sa.Column('verdict', sa.String(length=20), nullable=True),
    sa.Column('reason', sa.Text(), nullable=False),
    sa.Column('modules_expected', sa.Integer(), nullable=False),
    sa.Column('modules_landed', sa.Integer(), nullable=False),
    sa.Column('output', sa.Text(), nullable=True),
    sa.Column('output_sha256', sa.String(length=64), nullable=True),
    sa.Column('skipped', sa.JSON().with_variant(postgresql.JSONB(), 'postgresql'), nullable=False),
    sa.Column('id', sa.Integer(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.CheckConstraint("status IN ('planned', 'done', 'failed', 'refused')", name=op.f('ck_items_status')),
    sa.CheckConstraint("verdict IN ('copied', 'migrated', 'no_effect', 'harmful', 'unverified', 'refused', 'failed')", name=op.f('ck_items_verdict')),
    sa.ForeignKeyConstraint(['adapter_id'], ['adapters.id'], name=op.f('fk_items_adapter_id_adapters')),
    sa.ForeignKeyConstraint(['migration_id'], ['migrations.id'], name=op.f('fk_items_migration_id_migrations')),
    sa.ForeignKeyConstraint(['target_base_id'], ['bases.id'], name=op.f('fk_items_target_base_id_bases')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_items')),
    sa.UniqueConstraint('migration_id', 'adapter_name', 'adapter_location', 'target_base_id', name=op.f('uq_items_migration_id'))
    )
    with op.batch_alter_table('items', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_items_adapter_id'), ['adapter_id'], unique=False)
        batch_op.create_index(batch_op.f('ix_items_migration_id'), ['migration_id'], unique=False)
        batch_op.create_index(batch_op.f('ix_items_target_base_id'), ['target_base_id'], unique=False)

    op.create_table('measures',
    sa.Column('item_id', sa.Integer(), nullable=False),
    sa.Column('layer', sa.Integer(), nullable=False),
    sa.Column('role', sa.String(length=10), nullable=False),
    sa.Column('source_layer', sa.Integer(), nullable=False),
    sa.Column('source_energy', sa.Double(), nullable=True),
    sa.Column('target_energy', sa.Double(), nullable=True),
    sa.Column('retained_energy', sa.Double(), nullable=True),
    sa.Column('source_norm', sa.Double(), nullable=False),
    sa.Column('norm', sa.Double(), nullable=False),
    sa.Column('relative_norm', sa.Double(), nullable=True),
    sa.Column('id', sa.Integer(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['item_id'], ['items.id'], name=op.f('fk_measures_item_id_items')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_measures')),
    sa.UniqueConstraint('item_id', 'layer', 'role', name=op.f('uq_measures_item_id'))
    )
    with op.batch_alter_table('measures', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_measures_item_id'), ['item_id'], unique=False)

    op.create_table('promotions',
    sa.Column('target_base_id', sa.Integer(), nullable=False),
    sa.Column('adapter_name', sa.String(length=300), nullable=False),
    sa.Column('item_id', sa.Integer(), nullable=False),
    sa.Column('previous_item_id', sa.Integer(), nullable=True),
    sa.Column('action', sa.String(length=20), nullable=False),
    sa.Column('actor', sa.String(length=200), nullable=False),
    sa.Column('reason', sa.Text(), nullable=False),
    sa.Column('id', sa.Integer(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.CheckConstraint("action IN ('promote', 'rollback')", name=op.f('ck_promotions_action')),
    sa.ForeignKeyConstraint(['item_id'], ['items.id'], name=op.f('fk_promotions_item_id_items')),
    sa.ForeignKeyConstraint(['previous_item_id'], ['items.id'], name=op.f('fk_promotions_previous_item_id_items')),
    sa.ForeignKeyConstraint(['target_base_id'], ['bases.id'], name=op.f('fk_promotions_target_base_id_bases')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_promotions'))
    )
    with op.batch_alter_table('promotions', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_promotions_adapter_name'), ['adapter_name'], unique=False)
        batch_op.create_index(batch_op.f('ix_promotions_target_base_id'), ['target_base_id'], unique=False)

    op.create_table('verdicts',
    sa.Column('item_id', sa.Integer(), nullable=False),
    sa.Column('verdict', sa.String(length=20), nullable=False),
    sa.Column('reason', sa.Text(), nullable=False),
    sa.Column('evidence', sa.JSON().with_variant(postgresql.JSONB(), 'postgresql'), nullable=False),
    sa.Column('evidence_digest', sa.String(length=64), nullable=False),
    sa.Column('id', sa.Integer(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.CheckConstraint("verdict IN ('copied', 'migrated', 'no_effect', 'harmful', 'unverified', 'refused', 'failed')", name=op.f('ck_verdicts_verdict')),
    sa.ForeignKeyConstraint(['item_id'], ['items.id'], name=op.f('fk_verdicts_item_id_items')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_verdicts')),
    sa.UniqueConstraint('item_id', 'evidence_digest', name=op.f('uq_verdicts_item_id'))
    )
    with op.batch_alter_table('verdicts', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_verdicts_item_id'), ['item_id'], unique=False)




def downgrade() -> None:

    with op.batch_alter_table('verdicts', schema=None) as batch_op:
        batch_op.drop_index(batch_op.f('ix_verdicts_item_id'))

    op.drop_table('verdicts')
    with op.batch_alter_table('promotions', schema=None) as batch_op:
        batch_op.drop_index(batch_op.f('ix_promotions_target_base_id'))
        batch_op.drop_index(batch_op.f('ix_promotions_adapter_name'))

    op.drop_table('promotions')
    with op.batch_alter_table('measures', schema=None) as batch_op:
        batch_op.drop_index(batch_op.f('ix_measures_item_id'))

    op.drop_table('measures')
    with op.batch_alter_table('items', schema=None) as batch_op:
        batch_op.drop_index(batch_op.f('ix_items_target_base_id'))
        batch_op.drop_index(batch_op.f('ix_items_migration_id'))
        batch_op.drop_index(batch_op.f('ix_items_adapter_id'))

    op.drop_table('items')
    op.drop_table('migrations')
    with op.batch_alter_table('adapters', schema=None) as batch_op:
        batch_op.drop_index(batch_op.f('ix_adapters_base_id'))

    op.drop_table('adapters')
    op.drop_table('factor_sets')
    op.drop_table('evaluations')
    with op.batch_alter_table('bases', schema=None) as batch_op:
        batch_op.drop_index(batch_op.f('ix_bases_digest'))

    op.drop_table('bases')

