/** The Linux kernel's interfaces as they are, through the Foreign Function and Memory API. */
module dev.tidemark.ffm {
  exports dev.tidemark.ffm;
  exports dev.tidemark.ffm.iommufd;
  exports dev.tidemark.ffm.kvm;
  exports dev.tidemark.ffm.userfaultfd;
  exports dev.tidemark.ffm.vfio;
}
