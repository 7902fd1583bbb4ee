"""What started migrations: starts of pairs of bases, and webhook deliveries."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = '0003'
down_revision = '0002'
branch_labels = None
depends_on = None

def upgrade() -> None:
    op.create_table(
        'starts',
        sa.Column('source_base_id', sa.Integer(), nullable=False),
        sa.Column('target_base_id', sa.Integer(), nullable=False),
        sa.Column('number', sa.Integer(), nullable=False),
        sa.Column('key', sa.String(length=64), nullable=False),
        sa.Column('request', sa.JSON().with_variant(postgresql.JSONB(astext_type=sa.Text()), 'postgresql'), nullable=False),
        sa.Column('flow_run', sa.String(length=100), nullable=True),
        sa.Column('ended_at', sa.DateTime(timezone=True), nullable=True),
        sa.Column('id', sa.Integer(), nullable=False),
        sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(['source_base_id'], ['bases.id'], name=op.f('fk_starts_source_base_id_bases')),
        sa.ForeignKeyConstraint(['target_base_id'], ['bases.id'], name=op.f('fk_starts_target_base_id_bases')),
        sa.PrimaryKeyConstraint('id', name=op.f('pk_starts')),
        sa.UniqueConstraint('source_base_id', 'target_base_id', 'number', name=op.f('uq_starts_source_base_id')),
    )
    op.create_table(
        'deliveries',
        sa.Column('sender', sa.String(length=20), nullable=False),
        sa.Column('delivery', sa.String(length=200), nullable=False),
        sa.Column('summary', sa.Text(), nullable=False),
        sa.Column('base_name', sa.String(length=300), nullable=True),
        sa.Column('successor_name', sa.String(length=300), nullable=True),
        sa.Column('state', sa.String(length=20), nullable=False),
        sa.Column('reason', sa.Text(), nullable=False),
        sa.Column('flow_run', sa.String(length=100), nullable=True),
        sa.Column('id', sa.Integer(), nullable=False),
        sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("state IN ('received', 'started', 'ignored', 'failed')", name=op.f('ck_deliveries_state')),
        sa.PrimaryKeyConstraint('id', name=op.f('pk_deliveries')),
        sa.UniqueConstraint('sender', 'delivery', name=op.f('uq_deliveries_sender')),
    )
    op.create_index(op.f('ix_deliveries_state'), 'deliveries', ['state'], unique=False)

def downgrade() -> None:
    op.drop_index(op.f('ix_deliveries_state'), table_name='deliveries')
    op.drop_table('deliveries')
    op.drop_table('starts')
