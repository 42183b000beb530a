/** The Linux kernel's interfaces as they are, through the Foreign Function and Memory API. */
@SuppressWarnings("module") // It is compiled before the engine.
module dev.tidemark.ffm {
  exports dev.tidemark.ffm;
  exports dev.tidemark.ffm.internal to
      dev.tidemark.engine;
  exports dev.tidemark.ffm.iommufd;
  exports dev.tidemark.ffm.kvm;
  exports dev.tidemark.ffm.userfaultfd;
  exports dev.tidemark.ffm.vfio;
}
