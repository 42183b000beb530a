package dev.tidemark.bench.hot;

import dev.tidemark.engine.log.RamBlock;
import dev.tidemark.engine.source.DirtyTracker;
import dev.tidemark.engine.source.KvmSlot;
import dev.tidemark.engine.source.KvmSlotLogSource;
import dev.tidemark.ffm.Mapping;
import dev.tidemark.ffm.Pages;
import dev.tidemark.ffm.kvm.Kvm;
import dev.tidemark.ffm.kvm.KvmVm;
import java.util.BitSet;
import java.util.List;

/** KVM's log of a guest that writes nothing, to the plane: what each round costs at least. */
public final class KvmLogPath implements AutoCloseable {
  private final Mapping memory;
  private final Kvm kvm = Kvm.open();
  private final KvmVm vm = kvm.createVm();
  private final DirtyTracker tracker;
  private final Mapping scratch;
  private final long pages;
  private final BitSet dirty = new BitSet();

  /**
   * @param bytes of the one slot, reserved and not touched
   */
  public KvmLogPath(long bytes) {
    memory = Mapping.anonymous(bytes);
    pages = bytes / Pages.SIZE;
    RamBlock block = new RamBlock("ram", memory.segment());
    tracker = new DirtyTracker(List.of(block));
    tracker.add(
        new KvmSlotLogSource(
            vm, List.of(new KvmSlot(0, tracker.logs().getFirst(), 0, pages, 0, 0)), false));
    tracker.start();
    tidemark();
    scratch = Mapping.guarded(KvmVm.bitmapBytes(pages) + 63 & -64);
  }

  /** Asks, merges and takes. */
  public long tidemark() {
    tracker.sync();
    long found = tracker.harvest();
    tracker.commit();
    return found;
  }

  /** The same with Java's own {@link BitSet}. */
  public long bitSet() {
    vm.getDirtyLog(0, pages, scratch.segment());
    dirty.or(BitSet.valueOf(scratch.segment().asByteBuffer().asReadOnlyBuffer()));
    long found = dirty.cardinality();
    dirty.clear();
    return found;
  }

  @Override
  public void close() {
    tracker.close();
    vm.close();
    kvm.close();
    memory.close();
    scratch.close();
  }
}
