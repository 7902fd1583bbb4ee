"""Leases on shared results; factors whose maker was killed before it noted its time."""

import sqlalchemy as sa
from alembic import op

revision = '0002'
down_revision = '0001'
branch_labels = None
depends_on = None

def upgrade() -> None:
    op.create_table(
        'leases',
        sa.Column('name', sa.String(length=1000), nullable=False),
        sa.Column('holder', sa.String(length=300), nullable=False),
        sa.Column('expires_at', sa.DateTime(timezone=True), nullable=False),
        sa.Column('id', sa.Integer(), nullable=False),
        sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint('id', name=op.f('pk_leases')),
        sa.UniqueConstraint('name', name=op.f('uq_leases_name')),
    )
    with op.batch_alter_table('factor_sets', schema=None) as batch_op:
        batch_op.alter_column('seconds', existing_type=sa.Float(), nullable=True)

def downgrade() -> None:
    with op.batch_alter_table('factor_sets', schema=None) as batch_op:
        batch_op.alter_column('seconds', existing_type=sa.Float(), nullable=False)
    op.drop_table('leases')
