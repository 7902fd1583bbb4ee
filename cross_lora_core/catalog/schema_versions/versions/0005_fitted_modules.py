"""Modules that were fitted: no source update stands behind one, and the share of the wanted change is kept."""

import sqlalchemy as sa
from alembic import op

revision = '0005'
down_revision = '0004'
branch_labels = None
depends_on = None

def upgrade() -> None:
    with op.batch_alter_table('measures', schema=None) as batch_op:
        batch_op.alter_column('source_norm', existing_type=sa.Double(), nullable=True)
        batch_op.add_column(sa.Column('explained', sa.Double(), nullable=True))

def downgrade() -> None:
    op.execute('DELETE FROM measures WHERE source_norm IS NULL')
    with op.batch_alter_table('measures', schema=None) as batch_op:
        batch_op.drop_column('explained')
        batch_op.alter_column('source_norm', existing_type=sa.Double(), nullable=False)
