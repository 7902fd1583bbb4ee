"""Moving the alias of an adapter on a target: promote, and return to what was there before."""

from __future__ import annotations

from cross_lora_core.catalog.reading import PROMOTABLE, Reader
from cross_lora_core.catalog.records import PromotionRecord, record_of
from cross_lora_core.catalog.tables import ItemRow, PromotionRow
from cross_lora_core.catalog.turns import take_turn
from cross_lora_core.errors import RecordConflict, RecordNotFound

__all__ = ["Promoter"]


class Promoter(Reader):
    """Promotions within one unit of work; the latest row is where an alias points."""

    def hold(self) -> None:
        """Wait for other writers now: what is read afterwards stays true until this unit of work ends."""
        take_turn(self._session)

    def promote(self, item_id: int, *, actor: str, reason: str, accept: str | None = None) -> PromotionRecord:
        """Point an adapter's alias on a target at an item; promoting the current one changes nothing.

        Args:
            item_id: the result to promote.
            actor: who does it.
            reason: why.
            accept: a verdict outside `copied` and `migrated` that the person takes by name.

        Raises:
            RecordConflict: the verdict is not promotable and was not accepted by name.
        """
        take_turn(self._session)
        item = self._get(ItemRow, item_id)
        if item.output is None or item.verdict not in (*PROMOTABLE, accept):
            raise _not_promotable(item)
        current = self.current_promotion(item.target_base_id, item.adapter_name)
        if current is not None and current.item_id == item_id:
            return current
        return self._move(item, current.item_id if current else None, "promote", actor, reason)

    def rollback(self, target_id: int, adapter_name: str, *, actor: str, reason: str) -> PromotionRecord:
        """Point an alias back at what it pointed to before the current promotion.

        Raises:
            RecordNotFound: the adapter was never promoted there, or nothing came before.
        """
        take_turn(self._session)
        trail = self._trail(target_id, adapter_name)
        if len(trail) < 2:
            raise RecordNotFound(
                "an earlier promotion to return to",
                "promoted once only" if trail else "never promoted",
                f"adapter {adapter_name!r}",
                "List what there is with `cross-lora status`, then promote one by name.",
            )
        before = trail[-3] if len(trail) > 2 else None
        return self._move(self._get(ItemRow, trail[-2]), before, "rollback", actor, reason)

    def _trail(self, target_id: int, adapter_name: str) -> list[int]:
        """The items an alias moved along and was not rolled back from, the current one last."""
        trail: list[int] = []
        for one in reversed(self.history_of(target_id, adapter_name)):
            if one.action == "promote":
                trail.append(one.item_id)
            else:
                del trail[-1:]
        return trail

    def _move(
        self, item: ItemRow, previous: int | None, action: str, actor: str, reason: str
    ) -> PromotionRecord:
        row = PromotionRow(
            target_base_id=item.target_base_id,
            adapter_name=item.adapter_name,
            item_id=item.id,
            previous_item_id=previous,
            action=action,
            actor=actor,
            reason=reason,
        )
        self._session.add(row)
        self._session.flush()
        return record_of(PromotionRecord, row)


def _not_promotable(item: ItemRow) -> RecordConflict:
    remedy = "There is no output to promote; mend the cause and migrate again."
    if item.output is not None:
        remedy = f"To promote it all the same, name its verdict: --accept {item.verdict}."
    elif item.status == "done":
        remedy = "There is no output to promote: all that was tried does harm. Train it on the target."
    return RecordConflict(
        "a result with verdict copied or migrated",
        f"{item.verdict or item.status}",
        f"adapter {item.adapter_name!r}, item {item.id}",
        remedy,
    )
