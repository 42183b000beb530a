package dev.tidemark.bench.lab;

import dev.tidemark.engine.source.dma.DmaMap;
import dev.tidemark.engine.source.dma.DmaSource;
import dev.tidemark.engine.source.dma.Type1Source;
import dev.tidemark.ffm.lab.DmaDevice;
import dev.tidemark.ffm.vfio.VfioContainer;
import dev.tidemark.ffm.vfio.VfioGroup;
import dev.tidemark.ffm.vfio.VfioUapi;
import java.lang.foreign.MemorySegment;

/** A dmalog device behind a legacy container, which tells what was written. */
final class Type1Device implements LabDevice {
  private final VfioContainer container = VfioContainer.open();
  private VfioGroup group;
  private DmaDevice device;
  private Type1Source source;

  Type1Device() {
    try {
      group = VfioGroup.open(DmaDevice.names(DmaDevice.PLAIN).group());
      group.setContainer(container);
      container.setIommu(VfioUapi.VFIO_TYPE1v2_IOMMU);
      device = DmaDevice.open(DmaDevice.PLAIN, group);
      source = new Type1Source(container, new DmaMap());
    } catch (RuntimeException e) {
      close();
      throw e;
    }
  }

  @Override
  public void write(long iova, MemorySegment bytes) {
    device.write(iova, bytes);
  }

  @Override
  public DmaSource source() {
    return source;
  }

  @Override
  public long firstIova() {
    return 1L << 24;
  }

  @Override
  public long iovaBytes() {
    return 2L << 30;
  }

  @Override
  public void close() {
    if (device != null) {
      device.close();
    }
    if (group != null) {
      group.close();
    }
    container.close();
  }
}
