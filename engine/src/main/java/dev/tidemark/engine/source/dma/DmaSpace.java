package dev.tidemark.engine.source.dma;

import dev.tidemark.ffm.iommufd.Ioas;
import dev.tidemark.ffm.iommufd.IommufdUapi;
import dev.tidemark.ffm.vfio.VfioContainer;
import dev.tidemark.ffm.vfio.VfioUapi;

/** The kernel's half of an IO address space: an IOMMUFD one, or a type1 container. */
interface DmaSpace {
  /** Makes a mapping. */
  void map(long iova, long address, long bytes, boolean writable);

  /**
   * Removes mappings.
   *
   * @return bytes that were mapped
   */
  long unmap(long iova, long bytes);

  static DmaSpace of(Ioas ioas) {
    int read = IommufdUapi.IOMMU_IOAS_MAP_READABLE;
    int write = IommufdUapi.IOMMU_IOAS_MAP_WRITEABLE;
    return new DmaSpace() {
      @Override
      public void map(long iova, long address, long bytes, boolean writable) {
        ioas.mapFixed(iova, address, bytes, writable ? read | write : read);
      }

      @Override
      public long unmap(long iova, long bytes) {
        return ioas.unmap(iova, bytes);
      }
    };
  }

  static DmaSpace of(VfioContainer container) {
    int read = VfioUapi.VFIO_DMA_MAP_FLAG_READ;
    int write = VfioUapi.VFIO_DMA_MAP_FLAG_WRITE;
    return new DmaSpace() {
      @Override
      public void map(long iova, long address, long bytes, boolean writable) {
        container.mapDma(iova, address, bytes, writable ? read | write : read);
      }

      @Override
      public long unmap(long iova, long bytes) {
        return container.unmapDma(iova, bytes);
      }
    };
  }
}
